"""What can be known of a configuration before torch is loaded, beyond what each value may be: whether values fit each
other, whether the folders that it names are there, and whether the reward terms can score.

A run is judged by this before it begins. A configuration that is read again, as that of a run, is not: the folders that
it began with may be gone.
"""

from importlib.util import find_spec
from os.path import expanduser
from pathlib import Path

from envs.core.lookup import find
from marl_coop.config import policies
from marl_coop.config.errors import Keys
from marl_coop.config.schema import Config
from marl_coop.config.trial import try_rewards
from marl_coop.hyperparameters import (
    ENGINES,
    EPISODES_PER_UPDATE,
    NUM_MINI_BATCHES,
    SCHEDULE_KEYWORDS,
    check_engine_options,
    check_shares,
    plays_of_task,
)


def check_config(config: Config) -> None:
    """Refuse a run that cannot be.

    Raises:
        ConfigError: values do not fit each other, a folder is not there, or a reward term cannot score.
    """
    _check_shares(config)
    _check_template(config)
    _check_engine(config)
    _check_schedule(config)
    _check_places(config)
    try_rewards(config)


def _check_shares(config: Config) -> None:
    """Of one process; how many there are is known later."""
    said = config.training
    episodes = said.get("episodes_per_update", EPISODES_PER_UPDATE)
    accumulation = said.get("gradient_accumulation_steps", 1)
    plays = plays_of_task(said.get("advantage", "gae"), said.get("num_generations"))
    try:
        check_shares(episodes, said.get("num_mini_batches", NUM_MINI_BATCHES), accumulation, 1, plays)
    except ValueError as error:
        raise config.error(("training", "episodes_per_update"), str(error)) from error


def _check_template(config: Config) -> None:
    for key in config.model.chat_template_kwargs:
        if key in ("messages", "conversation", "tokenize", "add_generation_prompt", "return_dict"):
            raise config.error(("model", "chat_template_kwargs", key), "the library gives this to the template itself")


def _check_engine(config: Config) -> None:
    engine, options = config.training.get("engine", "embedded"), config.training.get("engine_options", {})
    keys: Keys = ("training", "engine")
    try:
        if engine not in ENGINES:
            find(engine, dict.fromkeys(ENGINES), kind="engine", example="my_lab.engines:make_engine")
        if engine == "vllm" and find_spec("vllm") is None:
            raise ValueError("vLLM is not installed: pip install --editable '.[vllm]'")
        keys = ("training", "engine_options")
        check_engine_options(engine, options)
        keys = ("training", "async_play")
        if config.training.get("async_play") and engine in ("embedded", "vllm"):
            raise ValueError(
                f"it must be false: {engine!r} sleeps while they learn; set training.engine to vllm_server"
            )
    except ValueError as error:
        raise config.error(keys, str(error)) from error


def _check_schedule(config: Config) -> None:
    for pair in (config.training.get("optim_args") or "").split(","):
        if pair and "=" not in pair:
            raise config.error(("training", "optim_args"), f"{pair!r} is refused: give name=value,name=value")
    kind, said = config.training.get("lr_scheduler_type", "constant"), config.training.get("lr_scheduler_kwargs")
    known = SCHEDULE_KEYWORDS.get(kind, ())
    for key in said or ():
        if key not in known:
            takes = f"takes {', '.join(known)}" if known else "takes none"
            raise config.error(("training", "lr_scheduler_kwargs", key), f"unknown key; the schedule {kind!r} {takes}")


def _check_places(config: Config) -> None:
    base = config.model.name_or_path
    if base.startswith(("/", "~", "./", "../")) and not Path(expanduser(base)).is_dir():
        raise config.error(("model", "name_or_path"), f"there is no folder {base!r}: give a folder or a Hub id")
    for adapter, folder in policies.starting_points(config.policies, config.lora.start_from).items():
        if not (folder / "adapter_config.json").is_file():
            problem = f"{str(folder)!r} is not the folder of a PEFT adapter, which {adapter!r} would begin as"
            raise config.error(("lora", "start_from"), f"{problem}; give a run, a checkpoint or one adapter")
