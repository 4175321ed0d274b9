"""One experiment from a configuration: warm up, evaluate, train, evaluate again, say what came of it."""

import copy
import dataclasses
import json
import os
import signal
import sys
import warnings
from functools import partial
from pathlib import Path

import torch
import transformers
from accelerate.utils import broadcast_object_list
from peft import LoraConfig
from rich.console import Console
from transformers import PrinterCallback, ProgressCallback, set_seed

from envs import sandbox
from envs.core.episode import Episode
from marl_coop.config import policies
from marl_coop.config.errors import nearest
from marl_coop.config.schema import Config
from marl_coop.evaluation.evaluate import before_and_after, evaluate, table
from marl_coop.evaluation.report import learning_curve
from marl_coop.experiment.callbacks import CurriculumLevel, MetricsFile, ProgressBar
from marl_coop.experiment.warmup import warm_adapter
from marl_coop.policy.allocator import keep_freed_memory
from marl_coop.policy.loading import adapted_layers, load_base
from marl_coop.policy.team import TeamPolicy
from marl_coop.ppo.config import MultiAgentPPOConfig
from marl_coop.ppo.trainer import MultiAgentPPOTrainer
from marl_coop.rollout.chat import Chat
from marl_coop.rollout.endpoint import Endpoint
from marl_coop.runs.rundir import plan_output_dir, record_start
from rewards import RewardStack

SYSTEM = "You and a partner write one module."


def training_arguments(config: Config, output_dir: str) -> MultiAgentPPOConfig:
    """The `training` section as `MultiAgentPPOConfig`.

    Raises:
        ConfigError: a key that it does not have, or a value that it refuses.
    """
    known = {field.name for field in dataclasses.fields(MultiAgentPPOConfig) if field.init}
    for key in config.training:
        if key in ("output_dir", "seed"):
            raise config.error(("training", key), f"set {key} at the top level of the configuration")
        if key not in known:
            raise config.error(("training", key), f"unknown key; did you mean {nearest(key, known)!r}?")
    try:
        defaults = {"run_name": config.name, "use_cpu": not torch.accelerator.is_available()}
        return MultiAgentPPOConfig(output_dir=output_dir, seed=config.seed, **(defaults | config.training))
    except (TypeError, ValueError) as error:
        raise config.error(("training",), str(error)) from error


def run(config: Config, resume: Path | None = None) -> None:
    """Run an experiment; `resume` is a checkpoint of an earlier start of it."""
    keep_freed_memory()
    quiet_libraries()
    args = training_arguments(config, output_dir=str(resume.parent if resume else "."))
    main = args.process_index == 0
    folder = resume.parent if resume else Path(*broadcast_object_list([str(plan_output_dir(config)) if main else None]))
    args.output_dir = str(folder)
    os.environ.setdefault("WANDB_PROJECT", "marl-coop")
    os.environ.setdefault("WANDB_DIR", str(folder))
    os.environ.setdefault("TENSORBOARD_LOGGING_DIR", str(folder / "tensorboard"))
    if main:
        record_start(folder, config)
    set_seed(config.seed)
    console = Console(file=sys.stdout, quiet=not main, soft_wrap=True)
    console.width = max(console.width, 100)  # of the table; a line of text is never broken
    console.print(f"run directory: {folder}")
    for tier in sandbox.describe().splitlines():
        console.print(f"sandbox of {tier}")

    try:
        base, tokenizer = load_base(config.model.name_or_path, config.model.dtype, config.model.attn_implementation)
        Chat(tokenizer, SYSTEM)
    except (OSError, ValueError) as error:
        raise config.error(("model", "name_or_path"), str(error)) from error
    lora = LoraConfig(
        r=config.lora.r,
        lora_alpha=config.lora.alpha,
        lora_dropout=config.lora.dropout,
        target_modules=config.lora.target_modules,
        layers_to_transform=adapted_layers(base, config.lora.upper_layers),
        task_type="CAUSAL_LM",
    )
    warm = warm_adapter(config, base, tokenizer, lora, SYSTEM) if config.warmup.steps else None
    adapters = policies.learners(config.policies)
    seats = len(config.policies) if args.critic == "central" else 1
    policy = TeamPolicy(base, lora, adapters, critic_seats=seats)
    if warm:
        for adapter in adapters:
            policy.load_adapter(adapter, warm)
    for name, saved in policies.frozen(config.policies).items():
        try:
            policy.add_frozen(name, saved)
        except ValueError as error:
            raise config.error(("policies",), str(error)) from error

    chats = {"system": SYSTEM, "temperature": args.temperature, "max_tokens": args.max_tokens}
    curriculum = config.make_curriculum()
    trainer = MultiAgentPPOTrainer(
        model=policy,
        args=args,
        make_env=lambda: config.make_env(**(curriculum.arguments if curriculum else {})),
        rewards=RewardStack.from_config(config.rewards),
        processing_class=tokenizer,
        policies=policies.build_players(config.policies, config.make_env(), partial(Endpoint, **chats)),
        system=SYSTEM,
        callbacks=[ProgressBar(), MetricsFile(folder / "metrics.jsonl")],
        on_rollouts=lambda update, episodes, breakdowns: write_episodes(
            folder / "episodes" / f"update-{update:04d}.{args.process_index}.jsonl", episodes, breakdowns
        ),
    )
    trainer.remove_callback(ProgressCallback)
    trainer.remove_callback(PrinterCallback)
    if curriculum:
        trainer.add_callback(CurriculumLevel(curriculum, trainer.collector.metrics))
    evaluators = copy.copy(trainer.players)
    evaluators.make_env = lambda: config.make_env(**config.evaluation.env)  # wherever the curriculum stands

    def play_unseen(label: str) -> list[Episode]:
        section = config.evaluation
        process = args.process_index, args.world_size
        episodes = evaluate(evaluators, section.episodes, section.seed, section.batch_size, process, label)
        if main:
            write_episodes(folder / f"{label}.jsonl", episodes)
        return episodes

    before_file = folder / "before.jsonl"
    before = read_episodes(before_file) if resume and before_file.exists() else play_unseen("before")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: the last checkpoint stays
    try:
        trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    except KeyboardInterrupt:
        console.print(f"stopped; go on from the last checkpoint with: --resume {folder}")
        raise SystemExit(130) from None
    trainer.save_model()
    after = play_unseen("after")
    if main:
        results = before_and_after(before, after)
        plain = {side: {n: dataclasses.asdict(m) for n, m in metrics.items()} for side, metrics in results.items()}
        (folder / "results.json").write_text(json.dumps(plain, indent=2) + "\n", encoding="utf-8")
        learning_curve([folder], folder / "learning_curve.png")
        console.print(table(results, f"{config.name}, seed {config.seed}: {len(after)} unseen instances"))
        console.print(f"run directory: {folder}")


def quiet_libraries() -> None:
    """Silence what libraries say of their own next versions and Python of a model's code, and the bars of what takes a
    second.
    """
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers|trl|peft|accelerate")
    warnings.filterwarnings("ignore", message=".*pin_memory.*")
    warnings.filterwarnings("ignore", module="<unknown>")  # where `ast.parse` read what a model wrote
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def write_episodes(file: Path, episodes: list[Episode], breakdowns: list | None = None) -> None:
    """One JSON line per episode, with its reward breakdown where there is one."""
    file.parent.mkdir(exist_ok=True)
    with file.open("w", encoding="utf-8") as out:
        for i, episode in enumerate(episodes):
            line = {"episode": json.loads(episode.to_json())}
            if breakdowns:
                line["rewards"] = breakdowns[i].to_dict()
            out.write(json.dumps(line) + "\n")


def read_episodes(file: Path) -> list[Episode]:
    with file.open(encoding="utf-8") as lines:
        return [Episode.from_json(json.dumps(json.loads(line)["episode"])) for line in lines]
