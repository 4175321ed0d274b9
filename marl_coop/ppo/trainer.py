"""Multi-agent PPO in TRL's idiom; read from top to bottom.

    collect    play, score, value, advantage: `marl_coop.ppo.experience`
    learn      epochs x minibatches of clipped ratio per token, value loss, k3 KL to the reference, entropy:
               `marl_coop.ppo.objective`

TRL 1.x no longer ships a PPO trainer, and the one that it had knew one agent and one turn; its trainer and config
bases are used here, so callbacks, schedulers, trackers, checkpoints and accelerate are the ones that users know. The
trainer's "dataset" is the schedule: item i is the i-th micro-batch of the run, and the first of each update plays.
"""

import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase, TrainerCallback

from envs.core.env import CoopEnv
from envs.core.task import Seat
from marl_coop.engines import Engine
from marl_coop.players import Mix, Player
from marl_coop.policy import sharding
from marl_coop.policy.compat import TrainerBase
from marl_coop.policy.loading import stop_ids, vocabulary
from marl_coop.policy.team import TeamPolicy
from marl_coop.ppo.batch import SeatSample, micro_batches
from marl_coop.ppo.config import MultiAgentPPOConfig, build_engine
from marl_coop.ppo.engine_weights import PastSnapshots
from marl_coop.ppo.experience import Collector
from marl_coop.ppo.objective import Objective
from marl_coop.ppo.processes import most, naming_lost_processes, total
from marl_coop.profiling import phase
from marl_coop.rollout import limits
from marl_coop.rollout.chat import Chat
from marl_coop.rollout.runner import RolloutRunner
from marl_coop.runs import checkpoints
from marl_coop.runs.rundir import TrainingError
from marl_coop.training_rules import refused_turns
from rewards import RewardStack

MAX_SAMPLING_GAP = 0.3  # nats per token, mean; bfloat16 and other kernels make a tenth of that


class MultiAgentPPOTrainer(TrainerBase):
    """Trains the adapters of a `TeamPolicy` together on episodes of an environment.

    Args:
        model: base, adapters and critics.
        args: see `MultiAgentPPOConfig`.
        make_env: gives a fresh environment.
        rewards: the terms and their weights or schedules.
        processing_class: the base model's tokenizer.
        policies: who sits in each seat, or a mix of them (`marl_coop.config.policies`); two seats may share an adapter.
        system: system message of every chat.
        callbacks: as in `transformers.Trainer`.
        on_rollouts: called on every process with the update's number, the episodes, their reward breakdowns and what
            is learned from each (`marl_coop.runs.records.Credit`).
        engine: samples the replies of `model`; None: the one that `args.engine` names.
        chat: puts text into token ids; None: by the template of `processing_class`, with `system`.
    """

    model: TeamPolicy
    args: MultiAgentPPOConfig

    def __init__(
        self,
        model: TeamPolicy,
        args: MultiAgentPPOConfig,
        make_env: Callable[[], CoopEnv],
        rewards: RewardStack,
        processing_class: PreTrainedTokenizerBase,
        policies: Mapping[Seat, Player | Mix],
        system: str,
        callbacks: list[TrainerCallback] | None = None,
        on_rollouts: Callable[[int, list, list, list], None] | None = None,
        engine: Engine | None = None,
        chat: Chat | None = None,
    ):
        if args.shard_base and args.world_size > 1:
            sharding.shard(model, args.device)
        super().__init__(model=model, args=args, processing_class=processing_class, callbacks=callbacks)
        self.policies = policies
        chat = chat or Chat(processing_class, system, stops=stop_ids(model.base), vocabulary=vocabulary(model.base))
        engine = engine or build_engine(model, args)
        max_tokens = limits.settled(args.max_tokens, make_env(), chat)
        self.players = RolloutRunner(make_env, policies, engine, chat, max_tokens, args.temperature)
        self.collector = Collector(model, args, self.players, rewards, policies, self.accelerator, on_rollouts)
        self.add_callback(self.collector.reward_weights)
        self.add_callback(PastSnapshots(model))
        self.add_callback(self.collector.engine_weights)
        self.metrics = self.collector.metrics
        self.loss = Objective(model, args, self.accelerator, self.metrics, pad=chat.eos)
        self.rows: list[dict[Seat, SeatSample]] = []  # of the running update, an entry per episode
        self._dropped = False  # the running step has met a loss that is not finite
        self._non_finite_losses = 0
        self.kept_step: int | None = None  # of a checkpoint that stays, however many come after it
        args.check_shares(self.accelerator.num_processes)
        if refused := refused_turns(vars(args), model.adapters):
            raise ValueError(f"training.alternate_updates: {refused}")

    # ------------------------------------------------------------------------------------------------ schedule

    def get_train_dataloader(self) -> DataLoader:
        micro_batches = self.args.max_steps * self.args.gradient_accumulation_steps
        schedule: Any = range(micro_batches)
        return DataLoader(schedule, batch_size=1, collate_fn=lambda items: {"micro_batch": items[0]})

    def training_step(self, model, inputs: dict[str, Any], num_items_in_batch=None) -> Tensor:
        """A minibatch, or its part by `gradient_accumulation_steps`: play where an update begins, then one forward and
        one backward for each of its micro-batches."""
        step, micro = divmod(inputs["micro_batch"], self.args.gradient_accumulation_steps)
        if micro == 0:
            self._dropped = False
        update, step_of_update = divmod(step, self.args.steps_per_update)
        if step_of_update == micro == 0 or not self.rows:  # none after a resume within an update: it plays again
            self.play(update)
        self.loss.fresh = step_of_update == 0
        rows, whole = self.minibatch(update, step_of_update, micro)
        counts = self.token_counts(whole)
        model.train()
        parts = micro_batches(rows, self.args.micro_batch_tokens, self.args.padding_free)
        parts += [[]] * (most(self.accelerator, max(1, len(parts))) - len(parts))  # all run backward as often
        total_loss = torch.zeros((), device=self.args.device)
        for i, part in enumerate(parts):
            if not self._dropped:
                with nullcontext() if i == len(parts) - 1 else self.accelerator.no_sync(model):
                    total_loss += self._learn(model, part, counts)
        self._rest([adapter for adapter, (tokens, _) in counts.items() if not tokens])
        return torch.zeros_like(total_loss) if self._dropped else total_loss

    def _learn(self, model, rows: Sequence[SeatSample], counts: Mapping[str, tuple[float, float]]) -> Tensor:
        """Forward and backward of a micro-batch; its loss. One that is not finite drops the whole step."""
        started = time.perf_counter()
        tokens = sum(len(row.trace.ids) for row in rows)
        with phase("forward", tokens=tokens), self.compute_loss_context_manager():
            loss = self.loss(model, rows, counts)
        if not self._all_processes(bool(torch.isfinite(loss))):
            self._non_finite_losses += 1
            self._dropped = True  # a part of a minibatch is no minibatch: the whole step is left out
            model.zero_grad()
            return torch.zeros_like(loss.detach())
        with phase("backward", tokens=tokens):
            self.accelerator.backward(loss)
        self.metrics.add("seconds/micro_batch", time.perf_counter() - started)
        return loss.detach()

    def play(self, update: int) -> None:
        """Play this process's share of an update: the `rows` that its minibatches are made of."""
        self.rows = self.collector.collect(update)

    def minibatch(self, update: int, step_of_update: int, micro: int) -> tuple[list[SeatSample], list[SeatSample]]:
        """This process's rows of a step of accumulation, and of the whole minibatch that it is a part of, sorted by
        adapter. Minibatches are dealt from the episodes of all processes, so they are the same however many there are.
        """
        epoch, index = divmod(step_of_update, self.args.num_mini_batches)
        plays = np.arange(self.args.episodes_per_update).reshape(-1, self.args.plays)  # a row for each task
        tasks = np.random.default_rng((self.args.seed, update, epoch)).permutation(len(plays))
        whole = np.array_split(tasks, self.args.num_mini_batches)[index]
        part = np.array_split(whole, self.args.gradient_accumulation_steps)[micro]
        part, whole = plays[part].flatten(), plays[whole].flatten()
        return self._sorted(part), self._sorted(whole)

    def _sorted(self, episodes: Iterable[int]) -> list[SeatSample]:
        first = self.accelerator.process_index * len(self.rows)
        mine = (self.rows[e - first] for e in episodes if first <= e < first + len(self.rows))
        played = (row for rows in mine for row in rows.values() if row.trace.turns)
        rows = [row for row in played if self.collector.learns(row.trace.player)]
        return sorted(rows, key=lambda row: self.model.adapters.index(row.trace.adapter))

    # --------------------------------------------------------------------------------------------------- learn

    def token_counts(self, rows: Sequence[SeatSample]) -> dict[str, tuple[float, float]]:
        """Action tokens and turns of a minibatch that count, by adapter, over all processes."""
        counts = torch.zeros(len(self.model.adapters), 2)
        for row in rows:
            if row.trainable:
                tokens = sum(turn.stop - turn.start for turn in row.trace.turns)
                counts[self.model.adapters.index(row.trace.adapter)] += torch.tensor([tokens, len(row.trace.turns)])
        return dict(zip(self.model.adapters, map(tuple, total(self.accelerator, counts).tolist()), strict=True))

    def _rest(self, adapters: Sequence[str]) -> None:
        """Keep the optimiser from moving adapters that this step teaches nothing, by momentum or by weight decay."""
        for adapter in adapters:
            for parameter in self.model.trained_by(adapter):
                parameter.grad = None

    @phase("optimiser")
    def clip_gradients(self) -> Tensor:
        """Clip each adapter and the critics on their own: one agent's spike must not shrink another's step."""
        groups = [self.model.adapter_parameters(adapter) for adapter in self.model.adapters]
        groups.append(list(self.model.critics.parameters()))
        norms = [self.accelerator.clip_grad_norm_(group, self.args.max_grad_norm) for group in groups if group]
        norm = torch.stack([torch.as_tensor(norm) for norm in norms]).norm()
        if not torch.isfinite(norm):  # one that is not would end every weight
            self._non_finite_losses += 1
            self.model.zero_grad()
            return torch.zeros_like(norm)
        return norm

    def create_optimizer(self, model=None):
        if self.optimizer is None:
            team: Any = self.model  # typed as a model of transformers there, and read by few optimisers
            optimizer_class, options = self.get_optimizer_cls_and_kwargs(self.args, team)
            adapters, rate = self.model.adapters, self.args.learning_rate
            a, b = ([p for name in adapters for p in self.model.adapter_parameters(name, m)] for m in "AB")
            groups = [
                {"params": a, "lr": rate},
                {"params": b, "lr": rate * self.args.loraplus_lr_ratio},
                {"params": list(self.model.critics.parameters()), "lr": self.args.critic_learning_rate},
            ]
            decay = {"weight_decay": self.args.weight_decay}
            self.optimizer = optimizer_class([group | decay for group in groups if group["params"]], **options)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer=None):
        """The schedule of `lr_scheduler_type`; its warm-up ends where it would, but begins above a rate of 0, which
        would waste the first step."""
        if self.lr_scheduler is None:
            scheduler = super().create_scheduler(num_training_steps, optimizer)
            warmup = self.args.get_warmup_steps(num_training_steps)
            if isinstance(scheduler, LambdaLR) and warmup:
                rates = [partial(_early, rate, warmup) for rate in scheduler.lr_lambdas]
                self.lr_scheduler = LambdaLR(scheduler.optimizer, rates)
        return self.lr_scheduler

    def resume_schedule(self) -> None:
        """Set the rates of a run of this length at its present step; the checkpoint has those of the length that it
        was made for."""
        if isinstance(scheduler := self.lr_scheduler, LambdaLR):
            step = scheduler.last_epoch
            rates = [base * rate(step) for base, rate in zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)]
            for group, rate in zip(scheduler.optimizer.param_groups, rates, strict=True):
                group["lr"] = rate
            scheduler._last_lr = rates

    # ------------------------------------------------------------------------------------------ report and save

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """One record per update: the loop's own numbers and the means of ours, over all processes.

        Not the summary that transformers adds at the end: it speaks of what came since the last start.
        """
        if "train_runtime" in logs:
            return
        if "loss" in logs:
            logs |= self.metrics.take()
            logs["memory_gib"] = psutil.Process().memory_info().rss / 2**30
            logs["non_finite_losses"], self._non_finite_losses = float(self._non_finite_losses), 0
            logs["update"] = self.state.global_step // self.args.steps_per_update
        super().log(logs, start_time)
        del self.state.log_history[:-1]  # metrics.jsonl has all; in every checkpoint it would be written again
        self._check_sampling(logs)
        self._check_faults(logs)

    def _check_faults(self, logs: Mapping[str, float]) -> None:
        """Raises TrainingError where an update met more faults than `max_fault_rate`."""
        rates = {
            "episodes met a sandbox fault": logs.get("team/sandbox_fault_rate", 0.0),
            "steps had a loss that is not finite, or a gradient": logs.get("non_finite_losses", 0.0)
            / self.args.steps_per_update,
        }
        for what, rate in rates.items():
            if rate > self.args.max_fault_rate:
                most = self.args.max_fault_rate
                raise TrainingError(f"{rate:.0%} of an update's {what} (training.max_fault_rate: {most:.0%})")

    def _check_sampling(self, logs: Mapping[str, float]) -> None:
        """Raises TrainingError where what sampled is not what is trained: every ratio would be wrong, and nothing else
        would show it."""
        for adapter in () if self.args.async_play else self.model.adapters:  # older weights are off as well
            if (gap := logs.get(f"{adapter}/sampling_gap", 0.0)) > MAX_SAMPLING_GAP:
                raise TrainingError(
                    f"the log-probabilities of {adapter}'s replies are {gap:.2f} nats from those of the engine that "
                    f"sampled them (at most {MAX_SAMPLING_GAP}): {type(self.players.engine).__name__} samples from "
                    "other weights, at another temperature, or in another precision"
                )

    def save_weights(self, folder: Path) -> None:
        policy = self.accelerator.unwrap_model(self.model)
        if folder.parent == self.checkpoint_folder():  # aside, where a checkpoint becomes whole with all its files
            policy.save(folder)
            return
        with checkpoints.replacing(folder) as unfinished:
            policy.save(unfinished)

    def load_weights(self, folder: Path) -> None:
        """Raises ValueError where the checkpoint is not whole: transformers would go on with a fresh optimiser."""
        if problem := checkpoints.flaw(folder):
            raise ValueError(f"{str(folder)!r} is not a whole checkpoint: {problem}; go on from an earlier one")
        self.model.load(folder)

    def checkpoint_folder(self) -> Path:
        return Path(str(self.args.output_dir)) / checkpoints.ASIDE

    @phase("checkpoint")
    def save_checkpoint(self, write: Callable[[], None]) -> None:
        """Raises CheckpointError where it cannot be written; the ones before it stay."""
        aside, folder = self.checkpoint_folder(), Path(str(self.args.output_dir))
        name = f"checkpoint-{self.state.global_step}"
        writing = partial(checkpoints.writing, name, folder)  # not around a wait, which a lost process ends
        if self.args.should_save:
            shutil.rmtree(aside, ignore_errors=True)  # of a run that was killed
        self.accelerator.wait_for_everyone()
        with writing(), naming_lost_processes():  # transformers sums up what was computed before it writes
            write()
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            with writing():
                checkpoints.publish(aside / name, folder, self.args.save_total_limit, keep=self.kept_step)
                shutil.rmtree(aside)
        self.accelerator.wait_for_everyone()

    # ------------------------------------------------------------------------------------------------ processes

    def _all_processes(self, condition: bool) -> bool:
        return total(self.accelerator, torch.tensor(float(condition))).item() == self.accelerator.num_processes


def _early(rate: Callable[[int], float], warmup: int, step: int) -> float:
    """The rate of a step, that of the next one while warming up."""
    return rate(step + 1 if step < warmup else step)
