"""What can be known of a configuration before torch is loaded, beyond what each value may be: whether values fit each
other, whether the folders that it names are there, and whether the reward terms can score.

A run is judged by this before it begins. A configuration that is read again, as that of a run, is not: the folders that
it began with may be gone.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from envs.core.fields import ArgumentError
from envs.core.lookup import did_you_mean
from marl_coop.bases import find_base
from marl_coop.config import policies
from marl_coop.config.errors import Keys
from marl_coop.config.schema import Config
from marl_coop.config.trial import try_rewards
from marl_coop.hyperparameters import EPISODES_PER_UPDATE, NUM_MINI_BATCHES, VLLM
from marl_coop.training_rules import check_length, check_shares, check_together, plays_of_task, updates_of

ATTENTIONS = (  # ours, and those of transformers that need no code from elsewhere
    "grouped", "eager", "sdpa", "flash_attention_2", "flash_attention_3", "flash_attention_4", "flex_attention",
)  # fmt: skip


def check_config(config: Config) -> None:
    """Refuse a run that cannot be.

    Raises:
        ConfigError: values do not fit each other, a folder is not there, or a reward term cannot score.
    """
    _check_training(config)
    _check_weights(config)
    try_rewards(config)
    _check_model(config)
    _check_starting_points(config)


def held_out_in_training(config: Config) -> str | None:
    """A line for the user of a run that trains on what is for evaluation alone; None where it does not."""
    played = config.levels or (config.make_env,)
    chosen = dict.fromkeys(name for env in played for name in env.config.kept_for_evaluation)
    if not chosen:
        return None
    return f"it trains on what is for evaluation alone ({', '.join(chosen)}): no figure on that is one of unseen tasks"


@contextmanager
def _at(config: Config, *keys: str) -> Iterator[None]:
    """Makes a ConfigError of a ValueError, for a value or one that the error leads to from there."""
    try:
        yield
    except ValueError as error:
        below: Keys = error.loc if isinstance(error, ArgumentError) else ()
        raise config.error((*keys, *below), str(error)) from error


def _check_training(config: Config) -> None:
    """Shares are those of one process; how many there are is known later."""
    said = config.training
    plays = plays_of_task(said.get("advantage", "gae"), said.get("num_generations"))
    minibatches = said.get("num_mini_batches", NUM_MINI_BATCHES)
    accumulation = said.get("gradient_accumulation_steps", 1)
    with _at(config, "training", "episodes_per_update"):
        check_shares(said.get("episodes_per_update", EPISODES_PER_UPDATE), minibatches, accumulation, 1, plays)
    with _at(config, "training"):
        check_together(said)
        check_length(said)
    with _at(config, "training", "engine"):
        if said.get("engine") == "vllm" and find_spec("vllm") is None:
            raise ValueError("vLLM is not installed: docs/scaling.md says how, in an environment of its own")
    with _at(config, "training", "async_play"):
        muted = said.get("advantage") == "counterfactual"
        alone = config.reward_stack.plays_alone
        changing = ["env.curriculum"] * bool(config.curriculum and (muted or alone))
        changing += ["past selves"] * bool(policies.past(config.policies) and muted)
        if said.get("async_play") and changing:
            raise ValueError(
                "it must be false: advantage=counterfactual and solo_gain replay episodes, and those that were begun "
                f"ahead may be of another level or beside another partner with {' and '.join(changing)}"
            )
    updates, adapters = updates_of(said), policies.learners(config.policies)
    with _at(config, "training", "alternate_updates"):
        if (each := said.get("alternate_updates") or 0) * (len(adapters) - 1) >= updates:
            raise ValueError(f"{each} is too many: {adapters[-1]} would not learn in a run of {updates} updates")
    with _at(config, "evaluation", "every"):
        if (every := config.evaluation.every) > updates:
            raise ValueError(f"{every} is beyond the run's {updates} updates: give as many at most, or 0 for never")


def _check_weights(config: Config) -> None:
    with _at(config, "rewards"):
        if not config.reward_stack.trained_on:
            raise ValueError("every weight is 0, and nothing would be learned: give one, as task_success.weight=1")


def _check_model(config: Config) -> None:
    section = config.model
    for key in section.chat_template_kwargs:
        with _at(config, "model", "chat_template_kwargs", key):
            if key in ("messages", "conversation", "tokenize", "add_generation_prompt", "return_dict"):
                raise ValueError("the library gives this to the template itself")
    with _at(config, "model", "attn_implementation"):
        if (name := section.attn_implementation) not in (None, *ATTENTIONS):
            raise ValueError(f"{name!r} is refused: there is no such attention.{did_you_mean(name, ATTENTIONS)}")
    with _at(config, "model", "end_of_turn"):
        if section.end_of_turn == "":
            raise ValueError("'' is refused: give a token, or null")
    with _at(config, "model", "load_in_4bit"):
        if section.load_in_4bit and (engine := config.training.get("engine")) in VLLM:
            raise ValueError(f"it must be false: {engine!r} would sample from the plain base; use the embedded engine")
        if section.load_in_4bit and config.training.get("shard_base"):
            raise ValueError("it must be false: training.shard_base shares out plain weights")
    with _at(config, "model", "name_or_path"):
        found = find_base(section.name_or_path)
        if isinstance(found, Path) and not (found / "config.json").is_file():
            raise ValueError(f"{str(found)!r} is the folder of no model: it has no config.json")


def _check_starting_points(config: Config) -> None:
    with _at(config, "lora", "start_from"):
        for adapter, folder in policies.starting_points(config.policies, config.lora.start_from).items():
            if not (folder / "adapter_config.json").is_file():
                problem = f"{str(folder)!r} is not the folder of a PEFT adapter, which {adapter!r} would begin as"
                raise ValueError(f"{problem}; give a run, a checkpoint or one adapter")
