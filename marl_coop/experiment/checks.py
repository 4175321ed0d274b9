"""What can be known to fail before a run: each check raises a ConfigError that names the key and the file."""

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import cast

import torch
from accelerate import PartialState
from transformers import PreTrainedModel, Trainer, get_scheduler

from envs.core.env import CoopEnv
from envs.core.fields import ArgumentError
from envs.core.seeds import Stream, task_seed
from envs.core.tokens import one_line
from envs.sandbox import SandboxError, executor
from marl_coop import training_rules
from marl_coop.config import policies
from marl_coop.config.errors import ConfigError, Keys
from marl_coop.config.schema import Config
from marl_coop.engines import EngineError, selftest, vllm, vllm_server
from marl_coop.experiment import setup
from marl_coop.hyperparameters import VLLM
from marl_coop.policy.adapters import check_adapter, digest
from marl_coop.policy.compat import get_reporting_integration_callbacks
from marl_coop.ppo.config import MultiAgentPPOConfig
from marl_coop.rollout.endpoint import EndpointError
from marl_coop.runs import rundir
from marl_coop.runs.checkpoints import step_of
from marl_coop.runs.rundir import RunError

FROZEN = "frozen adapters"
OWN_FORWARD = "sampling and learning by the model's own forward"
KEYS: dict[str | int, Keys] = {  # by the argument of the self-test that is to be another
    "adapters": ("policies",),
    "lora": ("lora", "target_modules"),
    "attn_implementation": ("model", "attn_implementation"),
    "base": ("model", "name_or_path"),
}


def check_shares(config: Config, args: MultiAgentPPOConfig, processes: int | None = None) -> None:
    """Refuse, before anything is loaded, batches that the processes cannot share.

    Args:
        processes: so many; None: those that run.

    Raises:
        ConfigError: a batch of the warm-up or an update's episodes are no multiple of what is played at once.
    """
    processes = processes or PartialState().num_processes
    chats, at_once = config.warmup.batch_size, config.warmup.micro_batch_size * processes
    if chats % at_once:
        problem = f"{chats} chats cannot be shared by {processes} processes x {config.warmup.micro_batch_size} at once"
        raise config.error(("warmup", "batch_size"), f"{problem}: use a multiple of {at_once}")
    try:
        training_rules.check_shares(*args.shares(processes))
    except ValueError as error:
        raise config.error(("training", "episodes_per_update"), str(error)) from error


def checks_of_start(
    config: Config, args: MultiAgentPPOConfig, base: PreTrainedModel, longest: int
) -> dict[str, Callable[[], object]]:
    """What a run tries before it writes anything, by name; each raises ConfigError where the run cannot be."""
    return checks_without_model(config, args) | checks_of_model(config, args, base, longest)


def checks_without_model(config: Config, args: MultiAgentPPOConfig) -> dict[str, Callable[[], object]]:
    """Those of `checks_of_start` for which no model need be there."""
    games = [make.cls for make in (config.make_env, config.make_evaluation_env, *config.levels)]
    return {
        "confinement of code that a model writes": partial(check_confinement, config, games),
        "optimiser, schedule, trackers": partial(try_training, config, args),
        "servers of the engine": partial(check_servers, config, args),
    }


def checks_of_model(
    config: Config, args: MultiAgentPPOConfig, base: PreTrainedModel, longest: int
) -> dict[str, Callable[[], object]]:
    """The others of `checks_of_start`: what plays beside the model, or is loaded into it, and the model itself."""
    return {
        "endpoints that play": partial(check_endpoints, config, args),
        "saved adapters to start from": partial(setup.starting_points, config, base),
        FROZEN: partial(check_frozen, config, base, args),
        OWN_FORWARD: lambda: check_model(config, base, args.device, longest),
        "play by the engine": partial(check_engine, config, args, base, longest),
    }


def check_confinement(config: Config, games: Iterable[type[CoopEnv]]) -> None:
    """Refuse to run code that a model writes, in environments of these classes, where no layer of the kernel holds it,
    but for `allow_unconfined_code`.

    Raises:
        ConfigError: none does, or what MARL_COOP_SANDBOX demands does not hold.
    """
    if config.allow_unconfined_code or not any(game.RUNS_CODE for game in games):
        return
    keys = ("allow_unconfined_code",)
    try:
        tier = executor.tier()
    except SandboxError as error:
        raise config.error(keys, str(error)) from error
    if not tier.confined:
        problem = f"code that a model writes would run with nothing but the interpreter around it: {tier}"
        raise config.error(keys, f"{problem}. Run it on Linux with Landlock or seccomp, or set this to true")


def try_training(config: Config, args: MultiAgentPPOConfig) -> None:
    """Make the optimiser and the schedule for one weight, and the trackers, before anything is written.

    Raises:
        ConfigError: one cannot be made or used here, or `accelerate launch` asks for another precision of learning.
    """
    if (precision := os.environ.get("ACCELERATE_MIXED_PRECISION", "no")) != "no":
        problem = f"{precision!r} is refused: it rounds what is learned otherwise than what is sampled; set model.dtype"
        raise ConfigError(problem, source="accelerate launch --mixed_precision")
    keys, steps = ("training", "optim_args" if args.optim_args else "optim"), args.max_steps
    try:
        optimizer_class, options = Trainer.get_optimizer_cls_and_kwargs(args)
        for pair in (args.optim_args or "").split(","):
            if pair and pair.partition("=")[0].strip() not in options:
                raise ValueError(f"{pair!r} has no effect on this optimiser")
        optimizer = optimizer_class([torch.nn.Parameter(torch.zeros(1))], **options)
        keys = ("training", "lr_scheduler_kwargs" if args.lr_scheduler_kwargs else "lr_scheduler_type")
        schedule = {"num_training_steps": steps, "scheduler_specific_kwargs": args.lr_scheduler_kwargs}
        get_scheduler(args.lr_scheduler_type, optimizer, args.get_warmup_steps(steps), **schedule)
        keys = ("training", "report_to")
        if "wandb" in (args.report_to or ()):
            from marl_coop.experiment.tracking import check_variables  # loads wandb, which takes a second

            check_variables()
        for tracker in get_reporting_integration_callbacks(args.report_to):
            tracker()
    except (ImportError, TypeError, ValueError, RuntimeError) as error:
        raise config.error(keys, f"{config.training.get(keys[1])!r} is refused: {one_line(error)}") from error


def check_servers(config: Config, args: MultiAgentPPOConfig) -> None:
    """Refuse servers that do not answer, before a warm-up is made for them.

    Raises:
        ConfigError: one does not.
    """
    if args.engine == "vllm_server":
        try:
            vllm_server.Servers(args.engine_options["urls"], vllm_server.CONNECT_S).positions()
        except EngineError as error:
            raise config.error(("training", "engine_options"), str(error)) from error


def check_engine(config: Config, args: MultiAgentPPOConfig, base: PreTrainedModel, longest: int) -> None:
    """Refuse vLLM that cannot play this team, before a warm-up is made for it: servers sample a few tokens from new
    adapters, and vLLM in process judges what it would be started with. `base` comes back without any.

    Raises:
        ConfigError: it cannot, or a chat of `longest` tokens has no room there.
    """
    if args.engine not in VLLM:
        return
    keys: Keys = ("training", "engine_options")
    with torch.random.fork_rng():
        policy = setup.make_policy(config, base, args).to(args.device)
    try:
        if args.engine == "vllm":
            most = vllm.check_team(policy, args.max_rows, args.engine_options)
        else:
            engine = vllm_server.VLLMServerEngine(policy, **args.engine_options)
            engine.load_adapters(0)
            PartialState().wait_for_everyone()  # servers forget the team with the first one's engine
            most = engine.max_positions
    except EngineError as error:
        raise config.error(keys, str(error)) from error
    finally:
        policy.unload()
    if longest > most:
        problem = f"a chat may come to {longest} tokens, and vLLM has {most} positions"
        raise config.error(keys, f"{problem}: a larger max_model_len, fewer rounds or shorter replies")


def check_endpoints(config: Config, args: MultiAgentPPOConfig) -> None:
    """Ask every endpoint that plays for one reply, before a warm-up is made for it.

    Raises:
        ConfigError: it gives none.
    """
    env = config.make_env()
    env.reset(seed=task_seed(Stream.WARM_UP, config.seed, 0))
    for seat, address, model in policies.endpoints(config.policies):
        try:
            setup.endpoint_maker(env, args)(address, model).reply(env, env.acting[0])
        except EndpointError as error:
            raise config.error(("policies", seat), str(error)) from error


def check_frozen(config: Config, base: PreTrainedModel, args: MultiAgentPPOConfig) -> None:
    """Read the frozen adapters that play, before a warm-up is made; `base` comes back without any.

    Raises:
        ConfigError: one is not there, or cannot play on this base.
    """
    if policies.frozen(config.policies):
        setup.make_policy(config, base, args).unload()


def check_adapters(config: Config, base: PreTrainedModel, checkpoint: Path) -> None:
    """Check that the adapters of a checkpoint are those of the configuration, on this base.

    Raises:
        RunError: they are not.
    """
    try:
        for adapter in policies.learners(config.policies):
            check_adapter(setup.lora_config(config, base), base, checkpoint / adapter)
    except ValueError as error:
        raise RunError(f"{str(checkpoint)!r} is of another team: {error}") from error


def of_other_runs(config: Config, start: bool = True) -> dict[str, str]:
    """A digest of every adapter of another run that plays in this one or, with `start`, begins it, by its folder. What
    cannot be read is left out: making it one of the team says why."""
    places = [*policies.frozen(config.policies).values()]
    places += policies.starting_points(config.policies, config.lora.start_from if start else None).values()
    found: dict[str, str] = {}
    for place in places:
        with suppress(OSError):
            found[str(place)] = digest(place)
    return found


def check_of_other_runs(config: Config, folder: Path, start: bool) -> None:
    """Refuse to go on with other adapters than those with which a run began.

    Args:
        folder: the run's.
        start: whether those count that it started from.

    Raises:
        RunError: one has changed since.
    """
    began_with = rundir.recorded(folder).get("adapters", {})
    for place, now in of_other_runs(config, start).items():
        if began_with.get(place, now) != now:
            raise RunError(
                f"the adapter in {place!r} is another one than {str(folder)!r} began with, so this would be another "
                "run: put that back, or begin a new one"
            )


def check_length(config: Config, args: MultiAgentPPOConfig, checkpoint: Path) -> None:
    """Refuse to go on from a checkpoint as a run that would have ended before it.

    Raises:
        ConfigError: the run is shorter.
    """
    done, key = step_of(checkpoint), "max_steps" if "max_steps" in config.training else "num_updates"
    if args.max_steps < done:
        problem = f"{checkpoint.name} has taken {done} optimisation steps, and this comes to {args.max_steps}"
        raise config.error(("training", key), f"{config.training.get(key)!r} is refused: {problem}; give more")


def check_model(config: Config, base: PreTrainedModel, device: torch.device, longest: int) -> None:
    """Refuse a model that cannot be sampled from and trained as its own forward means, by random chats of which one
    has about `longest` tokens.

    Raises:
        ConfigError: what is sampled or learned is not what its own forward gives, or adapters have no place in it.
    """
    if device.type == "cpu" and config.model.attn_implementation == "flex_attention":
        problem = "'flex_attention' ends the process on a CPU: use grouped, sdpa or eager there"
        raise config.error(("model", "attn_implementation"), problem)
    cast(torch.nn.Module, base).to(device)  # the types of the model's own `to` are lost in a decorator
    try:
        adapters, padding_free = policies.learners(config.policies), config.training.get("padding_free", False)
        selftest.check_model(base, setup.lora_config(config, base), adapters, longest, padding_free)
    except ArgumentError as error:
        raise config.error(KEYS[error.loc[0]], str(error)) from error
