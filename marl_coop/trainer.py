"""Multi-agent PPO in TRL's idiom; read from top to bottom.

    play       every process plays its share of the episodes with the current adapters
    score      reward terms on the episodes -> one number per turn
    value      one pass through the frozen reference: features for the critics, log-probabilities for the KL
    advantage  GAE over turns, broadcast to the tokens of a turn, whitened per agent over all processes
    learn      epochs x minibatches: clipped ratio per token, value loss, k3 KL to the reference, entropy

TRL 1.x no longer ships a PPO trainer, and the one that it had knew one agent and one turn; its trainer and config
bases are used here, so callbacks, schedulers, trackers, checkpoints and accelerate are the ones that users know. The
trainer's "dataset" is the schedule: item i is the i-th micro-batch of the run, and the first of each update plays.

The loss of an agent is a sum over its action tokens divided by their number in the whole minibatch, over all
processes: never by turn or by length, so no reply counts less for being long. Agents share no parameter, so the sum
of their losses trains each as if it were alone.
"""

import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import psutil
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase, TrainerCallback
from trl.trainer.base_trainer import _BaseTrainer

from envs.base import CoopEnv
from envs.episode import Seat, StopReason
from marl_coop import ppo, whatif
from marl_coop.batch import Row, collate, stack_turns
from marl_coop.chat import Chat
from marl_coop.engines.transformers import TransformersEngine
from marl_coop.models import give_back_freed_memory
from marl_coop.policy import BASE, TeamPolicy, spans_of, start_of
from marl_coop.ppo_config import MultiAgentPPOConfig
from marl_coop.rollout import Players, Rollout, stable_seed
from rewards import RewardStack
from rewards.metrics import rates
from rewards.solo_gain import SoloGain

TASK_SEEDS_PER_RUN = 10_000_000  # training tasks of run seed s are s * this + 0, 1, 2, ...


class MultiAgentPPOTrainer(_BaseTrainer):
    """Trains the adapters of a `TeamPolicy` together on episodes of an environment.

    Args:
        model: base, adapters and critics.
        args: see `MultiAgentPPOConfig`.
        make_env: gives a fresh environment.
        rewards: the terms and their weights.
        processing_class: the base model's tokenizer.
        policies: the adapter of each seat; two seats may share one.
        system: system message of every chat.
        callbacks: as in `transformers.Trainer`.
        on_rollouts: called on every process with the update's number, the episodes and their reward breakdowns.
    """

    _tag_names = ["trl", "multi-agent-ppo"]
    _name = "MultiAgentPPO"
    loss_is_scaled_for_ga = True

    def __init__(
        self,
        model: TeamPolicy,
        args: MultiAgentPPOConfig,
        make_env: Callable[[], CoopEnv],
        rewards: RewardStack,
        processing_class: PreTrainedTokenizerBase,
        policies: Mapping[Seat, str],
        system: str,
        callbacks: list[TrainerCallback] | None = None,
        on_rollouts: Callable[[int, list, list], None] | None = None,
    ):
        super().__init__(model=model, args=args, processing_class=processing_class, callbacks=callbacks)
        self.rewards, self.policies, self.on_rollouts = rewards, policies, on_rollouts
        chat = Chat(processing_class, system)
        engine = TransformersEngine(model, chat.eos, args.temperature, args.max_rows)
        self.players = Players(make_env, policies, engine, chat, args.max_tokens)
        self._reference = start_of if args.kl_reference == "start" else lambda _adapter: BASE
        self._solo = any(isinstance(term, SoloGain) and term.weight for term in rewards.terms)
        if args.kl_reference == "start" or args.advantage == "counterfactual" or self._solo:
            model.keep_start()
        self._rows: list[dict[Seat, Row]] = []  # the episodes of the running update
        self._dropped = False  # the running step has met a loss that is not finite
        self._metrics: dict[str, list[float]] = defaultdict(list)
        parts = self.accelerator.num_processes * args.num_mini_batches * args.gradient_accumulation_steps
        if args.episodes_per_update % parts:
            raise ValueError(
                f"training.episodes_per_update={args.episodes_per_update} cannot be shared by "
                f"{self.accelerator.num_processes} processes x {args.num_mini_batches} minibatches x "
                f"{args.gradient_accumulation_steps} accumulation steps: use a multiple of {parts}"
            )

    def _send_telemetry(self):
        """Nothing is sent anywhere but to the trackers of `report_to`."""

    # ------------------------------------------------------------------------------------------------ schedule

    def get_train_dataloader(self) -> DataLoader:
        micro_batches = self.args.max_steps * self.args.gradient_accumulation_steps
        return DataLoader(range(micro_batches), batch_size=1, collate_fn=lambda items: {"micro_batch": items[0]})

    def training_step(self, model, inputs: dict[str, int], num_items_in_batch=None) -> Tensor:
        """One micro-batch: play where an update begins, then one forward and one backward."""
        step, micro = divmod(inputs["micro_batch"], self.args.gradient_accumulation_steps)
        if micro == 0:
            self._dropped = False
        update, step_of_update = divmod(step, self.args.steps_per_update)
        if step_of_update == micro == 0 or not self._rows:  # none after a resume within an update: it plays again
            self._rows = self.play_and_score(update)
        rows, whole = self._minibatch(update, step_of_update, micro)
        started = time.perf_counter()
        if self._dropped:
            return torch.zeros((), device=self.args.device)
        model.train()
        with self.compute_loss_context_manager():
            loss = self.compute_loss(model, rows, num_items_in_batch=self._token_counts(whole))
        if not self._all_processes(bool(torch.isfinite(loss))):
            self._metrics["non_finite_losses"].append(1.0)
            self._dropped = True  # a part of a minibatch is no minibatch: the whole step is left out
            model.zero_grad()
            return torch.zeros_like(loss.detach())
        self.accelerator.backward(loss)
        self._metrics["seconds/micro_batch"].append(time.perf_counter() - started)
        return loss.detach()

    def _minibatch(self, update: int, step_of_update: int, micro: int) -> tuple[list[Row], list[Row]]:
        """Rows of a micro-batch, and of the whole minibatch that it is a part of, sorted by adapter."""
        epoch, index = divmod(step_of_update, self.args.num_mini_batches)
        order = np.random.default_rng((self.args.seed, update, epoch)).permutation(len(self._rows))
        whole = np.array_split(order, self.args.num_mini_batches)[index]
        part = np.array_split(whole, self.args.gradient_accumulation_steps)[micro]
        return self._sorted(part), self._sorted(whole)

    def _sorted(self, episodes: Sequence[int]) -> list[Row]:
        rows = [row for e in episodes for row in self._rows[e].values()]
        return sorted(rows, key=lambda row: self.model.adapters.index(row.trace.adapter))

    # -------------------------------------------------------------------------------- play, score, value, advantage

    @torch.no_grad()
    def play_and_score(self, update: int) -> list[dict[Seat, Row]]:
        """Play this process's share of an update; rows with rewards, values and advantages."""
        args, world = self.args, self.accelerator.num_processes
        give_back_freed_memory()
        share = args.episodes_per_update // world
        first = args.seed * TASK_SEEDS_PER_RUN + update * args.episodes_per_update
        first += self.accelerator.process_index * share
        started, sampling_seed = time.perf_counter(), stable_seed(args.seed, update)
        rollouts = self.players.play(range(first, first + share), sampling_seed)
        if self._solo:
            starts = [start_of(adapter) for adapter in self.model.adapters]
            rollouts = whatif.with_solo(self.players, rollouts, starts, sampling_seed)
        breakdowns = [self.rewards.score(rollout.episode) for rollout in rollouts]
        episodes = [
            {
                seat: Row(
                    trace=rollout.traces[seat],
                    counted=rollout.episode.stop_reason is not StopReason.SANDBOX_FAULT,
                    terms_MK=torch.tensor([*breakdown.weighted(seat).values()], dtype=torch.float32),
                )
                for seat in rollout.episode.seats
            }
            for rollout, breakdown in zip(rollouts, breakdowns, strict=True)
        ]
        if args.advantage == "counterfactual":
            self._add_baselines(episodes, rollouts, sampling_seed)
        self._metrics["seconds/play"].append(time.perf_counter() - started)
        give_back_freed_memory()  # the caches of the chats
        started = time.perf_counter()
        self._add_reference_and_values(episodes)
        self._metrics["seconds/reference"].append(time.perf_counter() - started)
        self._add_advantages([row for rows in episodes for row in rows.values()])
        self._record_play(rollouts, breakdowns)
        if self.on_rollouts:
            self.on_rollouts(update, [rollout.episode for rollout in rollouts], breakdowns)
        return episodes

    def _add_reference_and_values(self, episodes: list[dict[Seat, Row]]) -> None:
        """One pass through the reference: hidden states for the critics, log-probabilities for the KL where it counts.

        Features of the reference do not move while the adapters learn, so the critics read them as often as they need
        without another pass.
        """
        self.model.eval()
        own: dict[int, Tensor] = {}
        size = len(episodes) // (self.args.num_mini_batches * self.args.gradient_accumulation_steps)
        for start in range(0, len(episodes), size):  # as many at once as in learning
            part = episodes[start : start + size]
            rows = sorted((r for rows in part for r in rows.values()), key=lambda r: str(r.trace.adapter))
            batch = collate(rows, self.players.chat.eos, self.accelerator.device)
            spans = spans_of([self._reference(row.trace.adapter) for row in rows])
            ids_RT, mask_RT, trunk_RTH = batch.input_ids_RT, batch.attention_mask_RT, batch.trunk_RTH
            if self.args.kl_coef:
                scores, hidden_RTH = self.model.score(
                    spans, ids_RT, mask_RT, batch.rows_N, batch.columns_N, self.args.temperature, trunk_RTH
                )
                tokens = [sum(turn.stop - turn.start for turn in row.trace.turns) for row in rows]
                for row, reference_N in zip(rows, scores.logprobs_N.split(tokens), strict=True):
                    row.reference_N = reference_N
            else:
                hidden_RTH = self.model.hidden(spans, ids_RT, trunk_RTH, attention_mask=mask_RT, use_cache=False)
            features_JH = hidden_RTH[batch.prompt_ends_J].float()
            for row, features_KH in zip(rows, features_JH.split([len(r.trace.turns) for r in rows]), strict=True):
                own[id(row)] = features_KH
        for rows in episodes:
            for seat, row in rows.items():
                others = [r for s, r in rows.items() if s != seat] if self.args.critic == "central" else []
                beside = [own[id(r)][r.trace.latest(row.trace)] for r in others]
                row.features_KF = torch.cat([own[id(row)], *beside], dim=-1)
                row.values_K = self.model.values({row.trace.adapter: row.features_KF})[row.trace.adapter].cpu()

    def _add_baselines(self, episodes: list[dict[Seat, Row]], rollouts: list[Rollout], sampling_seed: int) -> None:
        for seat, adapter in self.policies.items():
            team = {s: adapter if s == seat else start_of(other) for s, other in self.policies.items()}
            silenced = whatif.silence(self.players, rollouts, seat, team, sampling_seed)
            baselines = whatif.message_baselines(rollouts, silenced, seat, self.rewards.score, self.args.gamma)
            for rows, baseline_K in zip(episodes, baselines, strict=True):
                rows[seat].baseline_K = baseline_K

    def _add_advantages(self, rows: list[Row]) -> None:
        lengths = self.accelerator.gather(torch.tensor(max(len(r.rewards_K) for r in rows), device=self.args.device))
        longest = int(lengths.max())
        rewards_RK, mask_RK = stack_turns(rows, "rewards_K", longest)
        terms_RMK, _ = stack_turns(rows, "terms_MK", longest)
        values_RK, _ = stack_turns(rows, "values_K", longest)
        advantages_RK, returns_RK = ppo.gae(rewards_RK, values_RK, mask_RK, self.args.gamma, self.args.lam)
        if self.args.advantage == "counterfactual":
            baselines_RK, _ = stack_turns(rows, "baseline_K", longest)
            credit_RK = ppo.returns_to_go(rewards_RK, self.args.gamma) - baselines_RK
            advantages_RK = torch.where(credit_RK.isnan(), advantages_RK, credit_RK)
        for seat in self.policies:
            mine = torch.tensor([row.seat == seat for row in rows])
            self._metrics[f"{seat}/explained_variance"].append(
                ppo.explained_variance(values_RK[mine], returns_RK[mine], mask_RK[mine])
            )
            terms_MRK = terms_RMK[mine].transpose(0, 1)
            shares_M = ppo.advantage_shares(terms_MRK, mask_RK[mine], self.args.gamma, self.args.lam)
            if self.args.advantage == "counterfactual":
                self._metrics[f"{seat}/message_credit"].append(float(credit_RK[mine].nanmean()))
            for term, share in zip(self.rewards.names, shares_M.tolist(), strict=True):
                self._metrics[f"{seat}/advantage_share/{term}"].append(share)
            advantages_RK[mine] = ppo.whiten(advantages_RK[mine], mask_RK[mine], self._total)
        for row, advantages_K, returns_K in zip(rows, advantages_RK, returns_RK, strict=True):
            row.advantages_K = advantages_K[: len(row.rewards_K)]
            row.returns_K = returns_K[: len(row.rewards_K)]

    # --------------------------------------------------------------------------------------------------- learn

    def compute_loss(self, model, inputs: list[Row], return_outputs=False, num_items_in_batch=None) -> Tensor:
        """Loss of a micro-batch; `num_items_in_batch` is what `_token_counts` gives for its whole minibatch."""
        args, device = self.args, self.accelerator.device
        batch = collate(inputs, self.players.chat.eos, device)
        join = lambda name: torch.cat([getattr(row, name) for row in inputs]).to(device)  # noqa: E731
        advantages_J, features_JF = join("advantages_K"), join("features_KF")
        returns_J, old_values_J = join("returns_K"), join("values_K")
        counted_J = torch.cat([torch.full((len(r.trace.turns),), float(r.counted)) for r in inputs]).to(device)
        features = {adapter: features_JF[turns] for adapter, turns in batch.turns.items()}
        scores, values = model(
            features,
            spans=batch.spans,
            input_ids_RT=batch.input_ids_RT,
            attention_mask_RT=batch.attention_mask_RT,
            rows_N=batch.rows_N,
            columns_N=batch.columns_N,
            temperature=args.temperature,
            trunk_RTH=batch.trunk_RTH,
        )
        policy_N, clipped_N = ppo.policy_loss(
            scores.logprobs_N, batch.old_logprobs_N, advantages_J[batch.turn_N], args.clip_low, args.clip_high
        )
        log_ratio_N = scores.logprobs_N - batch.old_logprobs_N
        measured = {
            "policy_loss": policy_N,
            "clip_fraction": clipped_N.float(),
            "entropy": scores.entropy_N,
            "approx_kl": ppo.k3_kl(log_ratio_N, torch.zeros_like(log_ratio_N)),
            "ratio": log_ratio_N.exp(),
        }
        token_loss_N = policy_N - args.entropy_coef * scores.entropy_N
        if args.kl_coef:
            measured["kl_to_reference"] = ppo.k3_kl(scores.logprobs_N, join("reference_N"))
            token_loss_N = token_loss_N + args.kl_coef * measured["kl_to_reference"]
        loss = token_loss_N.new_zeros(())
        for adapter, (tokens_total, turns_total) in num_items_in_batch.items():
            tokens, turns = batch.tokens[adapter], batch.turns[adapter]
            counted_N = counted_J[batch.turn_N][tokens]
            value_J = ppo.value_loss(values[adapter], old_values_J[turns], returns_J[turns], args.cliprange_value)
            loss = loss + (token_loss_N[tokens] * counted_N).sum() / tokens_total
            loss = loss + args.vf_coef * (value_J * counted_J[turns]).sum() / turns_total
            for name, values_N in measured.items():
                mean = ppo.masked_mean(values_N[tokens].detach(), counted_N)
                self._metrics[f"{adapter}/{name}"].append(float(mean))
            self._metrics[f"{adapter}/value_loss"].append(float(ppo.masked_mean(value_J.detach(), counted_J[turns])))
        return loss * self.accelerator.num_processes  # DDP takes the mean over processes; the loss is a global sum

    def _token_counts(self, rows: list[Row]) -> dict[str, tuple[float, float]]:
        """Per adapter: action tokens and turns of a minibatch that count, over all processes."""
        counts = torch.zeros(len(self.model.adapters), 2)
        for row in rows:
            if row.counted:
                tokens = sum(turn.stop - turn.start for turn in row.trace.turns)
                counts[self.model.adapters.index(row.trace.adapter)] += torch.tensor([tokens, len(row.trace.turns)])
        counts = self._total(counts).clamp(min=1).tolist()
        present = {row.trace.adapter for row in rows}
        return {a: tuple(c) for a, c in zip(self.model.adapters, counts, strict=True) if a in present}

    def _clip_grad_norm(self, model) -> Tensor:
        """Clip each adapter and the critics on their own: one agent's spike must not shrink another's step."""
        groups = [self.model.adapter_parameters(adapter) for adapter in self.model.adapters]
        groups.append(list(self.model.critics.parameters()))
        norms = [self.accelerator.clip_grad_norm_(group, self.args.max_grad_norm) for group in groups]
        return torch.stack([torch.as_tensor(norm) for norm in norms]).norm()

    def create_optimizer(self, model=None):
        if self.optimizer is None:
            optimizer_class, options = self.get_optimizer_cls_and_kwargs(self.args, self.model)
            adapters, rate = self.model.adapters, self.args.learning_rate
            a, b = ([p for name in adapters for p in self.model.adapter_parameters(name, m)] for m in "AB")
            groups = [
                {"params": a, "lr": rate},
                {"params": b, "lr": rate * self.args.loraplus_lr_ratio},
                {"params": list(self.model.critics.parameters()), "lr": self.args.critic_learning_rate},
            ]
            self.optimizer = optimizer_class([g | {"weight_decay": self.args.weight_decay} for g in groups], **options)
        return self.optimizer

    # ------------------------------------------------------------------------------------------ report and save

    def _record_play(self, rollouts: list[Rollout], breakdowns: list) -> None:
        for name, rate in rates([rollout.episode for rollout in rollouts]).items():
            self._metrics[f"team/{name}"].append(math.nan if rate is None else rate)
        for seat in self.policies:
            for term in self.rewards.names:
                totals = [breakdown.term_total(seat, term) for breakdown in breakdowns]
                self._metrics[f"{seat}/reward/{term}"].append(float(np.mean(totals)))
            self._metrics[f"{seat}/reward"].append(float(np.mean([b.total(seat) for b in breakdowns])))
            lengths = [t.stop - t.start for rollout in rollouts for t in rollout.traces[seat].turns]
            self._metrics[f"{seat}/generated_tokens"].append(float(sum(lengths) / len(rollouts)))

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """One record per update: the loop's own numbers and the means of ours, over all processes."""
        if "loss" in logs:
            names = sorted(name for name in self._metrics if name != "non_finite_losses")
            means = torch.stack([torch.tensor(self._metrics[n], dtype=torch.float32).nanmean() for n in names])
            defined = self._total((~means.isnan()).float())
            means = self._total(means.nan_to_num()) / defined
            logs |= {n: m for n, m in zip(names, means.tolist(), strict=True) if not math.isnan(m)}
            logs["memory_gib"] = psutil.Process().memory_info().rss / 2**30
            logs["non_finite_losses"] = sum(self._metrics["non_finite_losses"])
            logs["update"] = self.state.global_step // self.args.steps_per_update
            self._metrics.clear()
        super().log(logs, start_time)

    def _save(self, output_dir: str | None = None, state_dict=None) -> None:
        if self.args.should_save:
            folder = Path(output_dir or self.args.output_dir)
            folder.mkdir(parents=True, exist_ok=True)
            self.accelerator.unwrap_model(self.model).save(folder)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model=None) -> None:
        self.model.load(Path(resume_from_checkpoint))

    # ------------------------------------------------------------------------------------------------ processes

    def _total(self, values: Tensor) -> Tensor:
        """Sum over all processes."""
        return self.accelerator.reduce(values.to(self.accelerator.device), reduction="sum").to(values.device)

    def _all_processes(self, condition: bool) -> bool:
        return self._total(torch.tensor(float(condition))).item() == self.accelerator.num_processes
