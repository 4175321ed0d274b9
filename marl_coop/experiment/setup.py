"""From a configuration to the objects that an experiment is made of, each of them made once.

Nothing below this room sees a `Config`: what plays, trains and evaluates takes plain arguments, and what it refuses
becomes here a ConfigError that names the key and the file.
"""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from envs import CoopEnv
from envs.core.curriculum import Curriculum
from envs.core.fields import ArgumentError
from envs.core.lookup import nearest
from envs.repository.git import NoGitError
from marl_coop.config import policies
from marl_coop.config.builders import EnvMaker
from marl_coop.config.errors import Keys, dotted
from marl_coop.config.schema import Config
from marl_coop.engines import Engine
from marl_coop.experiment.warmup import demonstrate, warm_adapter
from marl_coop.players import Mix, PastSelves, Player
from marl_coop.policy.adapters import check_adapter
from marl_coop.policy.loading import (
    adapted_layers,
    fastest_dtype,
    load_base,
    max_positions,
    outside_decoder,
    stop_ids,
    vocabulary,
)
from marl_coop.policy.team import TeamPolicy
from marl_coop.ppo.config import MAX_TOKENS, MultiAgentPPOConfig, build_engine
from marl_coop.rollout import limits
from marl_coop.rollout.chat import Chat
from marl_coop.rollout.endpoint import Endpoint
from marl_coop.rollout.runner import RolloutRunner


def training_arguments(config: Config, output_dir: str = ".") -> MultiAgentPPOConfig:
    """The section `training` as `MultiAgentPPOConfig`.

    Raises:
        ConfigError: a key that it does not have, or a value that it refuses.
    """
    known = {field.name for field in dataclasses.fields(MultiAgentPPOConfig) if field.init}
    for key in config.training:
        if key not in known:
            raise config.error(("training", key), f"unknown key; did you mean {nearest(key, known)!r}?")
    try:
        values: dict[str, Any] = {"use_cpu": not torch.accelerator.is_available()} | config.training
        return MultiAgentPPOConfig(output_dir=output_dir, seed=config.seed, **values)
    except (TypeError, ValueError) as error:
        keys: Keys = ("training", *(error.loc if isinstance(error, ArgumentError) else ()))
        raise config.error(keys, str(error).removeprefix(f"{dotted(keys)}: ")) from error


def dtype_of(config: Config, on_gpu: bool = False) -> str:
    """`model.dtype`; where that is `fastest`, what is so on the device that the run will have.

    Args:
        on_gpu: judge for a GPU, whatever is here.
    """
    if config.model.dtype != "fastest":
        return config.model.dtype
    return "bfloat16" if on_gpu else fastest_here(config)


def fastest_here(config: Config) -> str:
    """Name of the dtype that is the fastest on the device that a run of this configuration has here."""
    return fastest_dtype(torch.device("cpu") if config.training.get("use_cpu") else None)


def load_model(config: Config) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The frozen base and its tokenizer.

    Raises:
        ConfigError: there is no such model, or it is none that can be trained here.
    """
    section = config.model
    try:
        base, tokenizer = load_base(
            section.name_or_path, dtype_of(config), section.attn_implementation, section.load_in_4bit
        )
    except ImportError as error:
        raise config.error(("model", "load_in_4bit"), str(error)) from error
    except OSError as error:
        raise config.error(("model", "name_or_path"), str(error)) from error
    except ValueError as error:
        raise config.error(("model", "attn_implementation"), str(error)) from error
    if config.training.get("gradient_checkpointing") and not base.supports_gradient_checkpointing:
        problem = f"{base.config.model_type} does not support it: set it to false, or use another model"
        raise config.error(("training", "gradient_checkpointing"), problem)
    return base, tokenizer


def make_environments(config: Config) -> tuple[CoopEnv, CoopEnv]:
    """The environments that are trained on, without a curriculum, and evaluated on.

    Raises:
        ConfigError: one cannot be made: a data set is not there, or no git; or a level has a system message of its own.
    """
    keys: tuple[str | int, ...] = ("env",)
    try:
        env, keys = config.make_env(), ("evaluation", "env")
        evaluation_env = config.make_evaluation_env()
        for i, make in enumerate(config.levels):
            keys = ("env", "curriculum", "levels", i)
            if (said := make().system_prompt) != env.system_prompt:
                raise ValueError(f"its system message is {said!r}, and in `env` it is {env.system_prompt!r}: give one")
        return env, evaluation_env
    except (ValueError, NoGitError) as error:
        raise config.error(keys, str(error)) from error


def make_chat(config: Config, base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, env: CoopEnv) -> Chat:
    """Chats by the model's template, with the system message of an environment.

    Raises:
        ConfigError: the template cannot be used.
    """
    section = config.model
    try:
        return Chat(
            tokenizer,
            env.system_prompt,
            stops=stop_ids(base),
            end_of_turn=section.end_of_turn,
            template_options=section.chat_template_kwargs,
            vocabulary=vocabulary(base),
        )
    except ValueError as error:
        loc = error.loc if isinstance(error, ArgumentError) else ("name_or_path",)
        keys = ("chat_template_kwargs" if key == "template_options" else key for key in loc)
        raise config.error(("model", *keys), str(error)) from error


def settle_limits(
    config: Config, args: MultiAgentPPOConfig, base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> limits.Lengths:
    """Fill the length limits of replies that `args` leaves open by what all environments that are played take, and
    return the lengths of the one whose chats may be the longest.

    Raises:
        ConfigError: a limit would cut what a demonstration says, or a chat may outgrow the model's positions.
    """
    levels = {("env", "curriculum", "levels", i): make for i, make in enumerate(config.levels)}
    makers = (levels or {("env",): config.make_env}) | {("evaluation", "env"): config.make_evaluation_env}
    measured: dict[tuple[str | int, ...], limits.Lengths] = {}
    seen: list[EnvMaker] = []
    for keys, make in makers.items():
        if make not in seen:
            env = make()
            measured[keys] = limits.measure(env, make_chat(config, base, tokenizer, env))
            seen.append(make)
    for phase, given in args.max_tokens.items():
        keys = max(measured, key=lambda keys: measured[keys].replies[phase])
        needed = measured[keys].replies[phase]
        if given < needed:
            problem = f"{given} is too few: in {dotted(keys)} a reply of the phase {phase} may take {needed} tokens"
            raise config.error(("training", MAX_TOKENS[phase]), f"{problem}; give as many, or leave it out")
    args.limit_replies(limits.shortest(limits.Lengths.longest(measured.values())) | args.max_tokens)
    for keys, lengths in measured.items():
        longest, most = lengths.chat(args.max_tokens), max_positions(base.config)
        if longest > most:
            problem = f"a chat in {dotted(keys)} may come to {longest} tokens, and the model has {most} positions"
            raise config.error(("model", "name_or_path"), f"{problem}: fewer rounds, or a model with more")
    return max(measured.values(), key=lambda lengths: lengths.chat(args.max_tokens))


def lora_config(config: Config, base: PreTrainedModel) -> LoraConfig:
    """The shape of every adapter."""
    return LoraConfig(
        r=config.lora.r,
        lora_alpha=config.lora.alpha,
        lora_dropout=config.lora.dropout,
        target_modules=config.lora.target_modules,
        exclude_modules=outside_decoder(base, config.lora.target_modules),
        layers_to_transform=adapted_layers(base, config.lora.upper_layers),
        task_type="CAUSAL_LM",
    )


def starting_points(config: Config, base: PreTrainedModel) -> dict[str, Path]:
    """The folder of the saved adapter that each adapter begins as; empty where `lora.start_from` names none.

    Raises:
        ConfigError: one is not there, or is not of the configuration's shape on this base.
    """
    folders = policies.starting_points(config.policies, config.lora.start_from)
    try:
        for folder in folders.values():
            check_adapter(lora_config(config, base), base, folder)
    except ValueError as error:
        raise config.error(("lora", "start_from"), str(error)) from error
    return folders


def make_shapes(config: Config, base: PreTrainedModel, args: MultiAgentPPOConfig) -> TeamPolicy:
    """The team on its base without the frozen adapters that play too, whose weights are on disk."""
    seats = args.critic_seats(len(config.policies))
    return TeamPolicy(base, lora_config(config, base), policies.learners(config.policies), critic_seats=seats)


def make_policy(config: Config, base: PreTrainedModel, args: MultiAgentPPOConfig) -> TeamPolicy:
    """The team on its base: what `make_shapes` gives, and the frozen adapters and the past selves that play too.

    Raises:
        ConfigError: a frozen adapter has another shape.
    """
    policy = make_shapes(config, base, args)
    try:
        for name, saved in policies.frozen(config.policies).items():
            policy.add_frozen(name, saved)
        for adapter in policies.past(config.policies):
            policy.keep_past(adapter, args.past_updates, args.past_limit)
    except ValueError as error:
        raise config.error(("policies",), str(error)) from error
    return policy


def warm_up(config: Config, base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, chat: Chat) -> Path:
    """Folder of an adapter that knows the format of replies; `base` comes back without one."""
    section = config.warmup
    environments = [make() for make in config.levels or (config.make_env,)]  # the format of all levels is taught
    episodes = -(-section.steps * section.batch_size // len(config.policies))
    rows = demonstrate(environments, chat, episodes, config.seed)
    return warm_adapter(
        base, tokenizer, lora_config(config, base), rows, seed=config.seed, **config.warmup.model_dump()
    )


def endpoint_maker(env: CoopEnv, args: MultiAgentPPOConfig) -> Callable[[str, str], Endpoint]:
    """Makes who plays an environment from an address and the name of a model there."""
    return partial(Endpoint, system=env.system_prompt, temperature=args.temperature, max_tokens=args.max_tokens)


def make_players(
    config: Config, env: CoopEnv, args: MultiAgentPPOConfig, past: Mapping[str, PastSelves] | None = None
) -> dict[str, Player | Mix]:
    """Who sits in each seat of an environment; `past` has the past selves of each adapter, where these play."""
    return policies.build_players(config.policies, env, endpoint_maker(env, args), past)


def make_engine(policy: TeamPolicy, args: MultiAgentPPOConfig) -> Engine:
    """What samples the replies, told of the adapters as they are."""
    engine = build_engine(policy, args)
    engine.load_adapters(0)
    return engine


def make_evaluator(
    config: Config, env: CoopEnv, engine: Engine, chat: Chat, args: MultiAgentPPOConfig, past: Mapping[str, PastSelves]
) -> RolloutRunner:
    """Plays the environment of the section `evaluation`, which `env` is one of, wherever a curriculum stands."""
    players = make_players(config, env, args, past)
    return RolloutRunner(config.make_evaluation_env, players, engine, chat, args.max_tokens, args.temperature)


def training_env(config: Config, curriculum: Curriculum | None) -> Callable[[], CoopEnv]:
    """Makes the environment that is trained on, on the level where its curriculum stands."""
    return config.make_env if curriculum is None else lambda: config.levels[curriculum.level]()
