"""What does not go together in the section `training` (`marl_coop.hyperparameters`), judged without torch.

Each rule stands here alone: a configuration asks it before a run, and `MultiAgentPPOConfig` for those who have none.
They are given the fields that were set; what is left out has its default.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from envs.core.fields import ArgumentError
from envs.core.lookup import find, nearest
from marl_coop.credentials import check_address
from marl_coop.hyperparameters import (
    ENGINES,
    GROUP,
    NUM_MINI_BATCHES,
    NUM_UPDATES,
    SCHEDULE_KEYWORDS,
    SERVER_OPTIONS,
    VLLM,
    VLLM_MIN_TEMPERATURE,
)

DAY_S = 86_400


def refused_together(values: Mapping[str, Any]) -> tuple[str, str] | None:
    """A field of this section that does not go with the others, and why; None: all do. What is left out has its
    default.

    >>> refused_together({"advantage": "group", "num_generations": 1})
    ('num_generations', "1 is refused: advantage='group' compares several plays of a task, so give at least 2")
    """
    advantage, scale = values.get("advantage", "gae"), values.get("scale_rewards", "none")
    plays = plays_of_task(advantage, values.get("num_generations"))
    if advantage == "group" and plays < 2:
        return (
            "num_generations",
            f"{plays} is refused: {advantage=} compares several plays of a task, so give at least 2",
        )
    if advantage != "group" and scale != "none":
        return "scale_rewards", f"{scale!r} has no effect with {advantage=}, which whitens: leave it out"
    if (episodes := values.get("episodes_per_update", plays)) % plays:
        return "episodes_per_update", f"{episodes} is no multiple of the {plays} plays of each task (num_generations)"
    return None


def check_together(values: Mapping[str, Any]) -> None:
    """Check that what this section says of the engine, the optimiser and the schedule goes together.

    Raises:
        ArgumentError: it does not; `loc` is the field.

    >>> check_together({"async_play": True})  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    envs.core.fields.ArgumentError: it must be false: 'embedded' sleeps while they learn; set training.engine to ...
    """
    engine = values.get("engine", "embedded")
    with at_field("engine"):
        find(engine, dict.fromkeys(ENGINES), kind="engine", example="my_lab.engines:make_engine")
    with at_field("engine_options"):
        check_engine_options(engine, values.get("engine_options", {}))
    with at_field("async_play"):
        if values.get("async_play") and engine in ("embedded", "vllm"):
            raise ValueError(
                f"it must be false: {engine!r} sleeps while they learn; set training.engine to vllm_server"
            )
        if values.get("async_play") and values.get("importance") == "recompute":
            raise ValueError(
                "it must be false: importance='recompute' corrects for rounding, and not for weights that are one "
                "update old; 'truncated' and 'sampler' do"
            )
    with at_field("temperature"):
        if engine in VLLM and (heat := values.get("temperature", 1.0)) < VLLM_MIN_TEMPERATURE:
            raise ValueError(f"{heat:g} is too low: vLLM samples at {VLLM_MIN_TEMPERATURE:g} or more")
    with at_field("optim_args"):
        for pair in (values.get("optim_args") or "").split(","):
            if pair and "=" not in pair:
                raise ValueError(f"{pair!r} is refused: give name=value,name=value")
    schedule = values.get("lr_scheduler_type", "constant")
    known = SCHEDULE_KEYWORDS.get(schedule, ())
    keywords = values.get("lr_scheduler_kwargs")
    for key in keywords if isinstance(keywords, Mapping) else ():
        with at_field("lr_scheduler_kwargs", key):
            if key not in known:
                takes = f"takes {', '.join(known)}" if known else "takes none"
                raise ValueError(f"unknown key; the schedule {schedule!r} {takes}")


def check_length(values: Mapping[str, Any]) -> None:
    """Check that a run by this section is long enough to warm up its rate.

    Raises:
        ArgumentError: it is not; `loc` is the field.

    >>> check_length({"num_updates": 2, "lr_scheduler_type": "linear", "warmup_steps": 6})
    Traceback (most recent call last):
    envs.core.fields.ArgumentError: 6 is beyond the run's 4 steps: give fewer, or a share of them below 1
    """
    most = values.get("max_steps", -1)
    steps = most if most > 0 else updates_of(values) * _steps_per_update(values)
    warm, schedule = values.get("warmup_steps", 0), values.get("lr_scheduler_type", "constant")
    with at_field("warmup_steps"):
        if warm and schedule == "constant":
            raise ValueError(f"{warm:g} has no effect on a constant rate; set lr_scheduler_type=constant_with_warmup")
        if warm >= 1 and warm != int(warm):
            raise ValueError(f"{warm:g} is refused: give a whole number of steps, or a share of them below 1")
        if warm > steps:
            raise ValueError(f"{warm:g} is beyond the run's {steps} steps: give fewer, or a share of them below 1")


def updates_of(values: Mapping[str, Any]) -> int:
    """Rounds of play and learning in a run by this section; the last may be cut short."""
    if (steps := values.get("max_steps", -1)) > 0:
        return -(-steps // _steps_per_update(values))
    return values.get("num_updates", NUM_UPDATES)


def _steps_per_update(values: Mapping[str, Any]) -> int:
    return values.get("num_ppo_epochs", 1) * values.get("num_mini_batches", NUM_MINI_BATCHES)


@contextmanager
def at_field(*loc: str) -> Iterator[None]:
    """Makes an ArgumentError of a ValueError, which leads to a field of this section."""
    try:
        yield
    except ValueError as error:
        raise ArgumentError(str(error), loc) from error


def refused_turns(values: Mapping[str, Any], adapters: Sequence[str]) -> str | None:
    """Why so many adapters do not take turns as this section says; None: they do."""
    updates = values.get("alternate_updates")
    if updates is None or len(adapters) > 1:
        return None
    return f"{updates} is refused: {', '.join(adapters)} alone is trained, and there is none to take turns with"


def plays_of_task(advantage: str, num_generations: int | None) -> int:
    """Plays of each task in an update."""
    return num_generations or (GROUP if advantage == "group" else 1)


def check_shares(episodes: int, minibatches: int, accumulation: int, processes: int, plays: int) -> None:
    """Raises ValueError where so many processes, or the minibatches, cannot share an update's episodes evenly, all
    plays of a task together."""
    parts = math.lcm(processes, minibatches * accumulation)
    if episodes % (parts * plays):
        tasks = f", with {plays} plays of each task together" if plays > 1 else ""
        raise ValueError(
            f"{episodes} cannot be shared by {processes} processes and {minibatches} minibatches x {accumulation} "
            f"accumulation steps{tasks}: use a multiple of {parts * plays}"
        )


def check_engine_options(engine: str, options: Mapping[str, Any]) -> None:
    """Check the options of an engine that can be judged without it. Raises ValueError where they are not for it."""
    if engine == "embedded" and options:
        raise ValueError(f"the embedded engine has none, got {sorted(options)}")
    if engine == "vllm" and "hf_token" in options:
        raise ValueError("'hf_token' would be in the run's records: give it by the environment ($HF_TOKEN)")
    if engine == "vllm_server":
        check_server_options(options)


def check_server_options(options: Mapping[str, Any]) -> None:
    """Check the options of the engine "vllm_server" (`marl_coop.engines.vllm_server.VLLMServerEngine`) without asking a
    server.

    Raises:
        ValueError: one is unknown, missing or of another kind.
    """
    for name in options:
        if name not in SERVER_OPTIONS:
            raise ValueError(f"unknown key {name!r}; did you mean {nearest(name, SERVER_OPTIONS)!r}?")
    urls: Any = options.get("urls")
    addresses = [str(url).rstrip("/") for url in urls] if isinstance(urls, list | tuple) else []
    for url in addresses or [str(urls)]:  # first, because the other messages quote them
        check_address(url)
    if not addresses or not all(url.startswith(("http://", "https://")) for url in addresses):
        raise ValueError(f"urls must be a list of addresses such as ['http://localhost:8000/v1'], got {urls!r}")
    if len({*addresses}) < len(addresses):
        raise ValueError(f"urls names a server twice: {urls!r}")
    if not isinstance(options.get("adapter_folder"), str | None):
        raise ValueError(f"adapter_folder must be a folder, got {options['adapter_folder']!r}")
    timeout = options.get("timeout_s", 1.0)
    if not isinstance(timeout, int | float) or isinstance(timeout, bool) or not 0 < timeout <= DAY_S:
        raise ValueError(f"timeout_s must be a positive number of seconds, a day at most, got {timeout!r}")
