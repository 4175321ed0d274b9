"""What one would try in the place of reinforcement, from the same warm-up, on as many chats: which choice is right is
taught by supervision.

    python benchmarks/supervised.py imitation --config configs/quickstart.yaml seed=0 --output runs/imitation-0
    python benchmarks/supervised.py preferences --config configs/quickstart.yaml seed=0 --output runs/preferences-0
    marl-coop eval runs/imitation-0 runs/preferences-0 --quick

    imitation      TRL's SFTTrainer on all that ideal players write
    preferences    TRL's DPOTrainer on last replies: the ideal one against the one that takes the other's option. Where
                   claims differ one seat is to resist and one to accept, so both are taught equally
                   (persuasion-balanced training, arXiv 2410.14596)

One adapter, `team`, is made for all seats, in the folder of a run that is called after the method. Its chats are as
many as the configuration's updates play; a pair counts as two.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterable, Iterator
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np

from envs.core.env import CoopEnv
from envs.core.episode import Episode, Phase
from envs.core.posterior import named_option
from envs.core.seeds import Stream, task_seed
from envs.core.task import Decision, Seat
from envs.scripted.demonstrator import Demonstrator
from envs.scripted.play import play
from marl_coop.cli import run_script
from marl_coop.cli.arguments import add_configuration, set_environment
from marl_coop.config.schema import load_config
from marl_coop.runs import rundir

TEAM = "team"  # the adapter


class Ideal(Demonstrator):
    """Words things as the demonstrator does and ends on what is likeliest by all that its seat knows.

    Attributes:
        chosen, rejected: its last reply, and the same with the option of the other; None where both claim the same.
    """

    chosen: str
    rejected: str | None = None
    _takes_the_others = False

    def decide(self, env: CoopEnv, seat: Seat, decision: Decision) -> tuple[str, float]:
        option, likely = next(iter(env.posterior(seat, decision).items()))
        if self._takes_the_others:
            own, heard = decision.belief[seat], named_option(env.heard(seat), decision)
            option = own if option == heard else heard or own
        return option, likely

    def reply(self, env: CoopEnv, seat: Seat) -> str:
        said = super().reply(env, seat)
        if env.phase is Phase.FINAL:
            self._takes_the_others = True
            other, self.chosen = super().reply(env, seat), said
            self._takes_the_others = False
            self.rejected = None if other == said else other
        return said


def chats(env: CoopEnv, seed: int) -> Iterator[tuple[Episode, Seat, Ideal]]:
    """Ideal episodes without end, on tasks of training, seat by seat: the episode, the seat, who sat there."""
    for index in count():
        players = {seat: Ideal(np.random.default_rng((seed, index, i))) for i, seat in enumerate(env.possible_agents)}
        episode = play(env, players, seed=task_seed(Stream.TRAINING, seed, index))
        yield from ((episode, seat, players[seat]) for seat in episode.seats)


def preferences(played: Iterable[tuple[Episode, Seat, Ideal]], chat: Any) -> Iterator[dict[str, str]]:
    """Of each chat where the claims differ: all that is before the last reply, and the two that this may be."""
    from marl_coop.experiment.warmup import row_of

    for episode, seat, player in played:
        if player.rejected is not None:
            ids = row_of(chat, episode.turns_of(seat))["input_ids"]
            chosen, rejected = chat.reply_ids(player.chosen), chat.reply_ids(player.rejected)
            parts = {"prompt": ids[: len(ids) - len(chosen)], "chosen": chosen, "rejected": rejected}
            yield {name: chat.tokenizer.decode(part) for name, part in parts.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("method", choices=("imitation", "preferences"))
    add_configuration(parser)
    parser.add_argument("--output", type=Path, required=True, help="the folder of the run")
    parser.add_argument("--learning-rate", type=float, help="default: 1e-3 of imitation, 5e-4 of preferences")
    args = parser.parse_intermixed_args()
    set_environment()
    seats = load_config(args.config, args.overrides).policies
    shared = f"policies={{{', '.join(f'{seat}: {TEAM}' for seat in seats)}}}"
    config = load_config(args.config, [f"name={args.method}", *args.overrides, shared])
    if args.output.exists():
        raise SystemExit(f"error: {args.output} exists already; give --output another name")
    print(f"written: {args.output}, taught by {teach(args.method, config, args.output, args.learning_rate)} chats")


def teach(method: str, config: Any, output: Path, learning_rate: float | None) -> int:
    """Teach the adapter and write the folder of its run; the number of chats that it was taught by."""
    from datasets import Dataset
    from peft import PeftModel
    from transformers import set_seed
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

    from marl_coop.experiment import setup
    from marl_coop.experiment.libraries import quiet_libraries
    from marl_coop.experiment.warmup import row_of

    quiet_libraries()
    arguments = setup.training_arguments(config)
    set_seed(config.seed)
    env = setup.make_environments(config)[0]
    base, tokenizer = setup.load_model(config)
    chat = setup.make_chat(config, base, tokenizer, env)
    warm = setup.warm_up(config, base, tokenizer, chat)
    model = PeftModel.from_pretrained(base, str(warm), is_trainable=True)
    total = arguments.num_updates * arguments.episodes_per_update * len(env.possible_agents)
    section = config.warmup
    played = chats(env, config.seed)
    with tempfile.TemporaryDirectory() as scratch:
        options = {
            "output_dir": scratch,
            "per_device_train_batch_size": section.micro_batch_size,
            "gradient_accumulation_steps": section.batch_size // section.micro_batch_size,
            "num_train_epochs": 1,
            "lr_scheduler_type": "linear",
            "save_strategy": "no",
            "logging_steps": 4,
            "report_to": "none",
            "gradient_checkpointing": False,
            "bf16": False,
            "max_length": None,
            "seed": config.seed,
            "use_cpu": arguments.device.type == "cpu",
        }
        if method == "imitation":
            options |= {"learning_rate": learning_rate or 1e-3, "warmup_steps": total // section.batch_size // 10}
            rows = Dataset.from_list(
                [dict(row_of(chat, episode.turns_of(seat))) for episode, seat, _ in islice(played, total)]
            )
            trainer: Any = SFTTrainer(model, SFTConfig(**options), train_dataset=rows, processing_class=tokenizer)
        else:
            options |= {"learning_rate": learning_rate or 5e-4, "warmup_steps": total // 2 // section.batch_size // 10}
            pairs = Dataset.from_list(list(islice(preferences(played, chat), total // 2)))
            trainer = DPOTrainer(model, None, DPOConfig(**options), train_dataset=pairs, processing_class=tokenizer)
        trainer.train()
        model.save_pretrained(scratch, selected_adapters=["default"])
        policy = setup.make_shapes(config, model.unload(), arguments)
        policy.load_adapter(TEAM, Path(scratch))
    output.mkdir(parents=True)
    rundir.record_start(output, config.name, config.to_yaml(), config.seed, config.folders, (TEAM,))
    policy.save(output)
    return total


if __name__ == "__main__":
    sys.exit(run_script(main))
