"""From the current adapters to rows that can be learned from: play, score, value, advantage.

    play       every process plays its share of the episodes with the current adapters
    score      reward terms on the episodes -> one number per turn
    value      one pass through the frozen reference: features for the critics, log-probabilities for the KL
    advantage  GAE over turns, or credit against a silent replay; whitened per agent over all processes

Axes in names: R rows, T positions, N action tokens, J turns of all rows (flat), K turns of one row, M reward terms.
"""

import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from envs.core.task import Seat
from marl_coop.players import BASE, Mix, Player
from marl_coop.policy.allocator import give_back_freed_memory
from marl_coop.policy.routed_lora import spans_of
from marl_coop.policy.team import TeamPolicy, reference_name
from marl_coop.ppo import counterfactual, losses
from marl_coop.ppo.batch import SeatSample, collate, stack_turns
from marl_coop.ppo.config import MultiAgentPPOConfig
from marl_coop.ppo.engine_weights import EngineWeights
from marl_coop.ppo.reward_weights import RewardWeights
from marl_coop.rollout.runner import Rollout, RolloutRunner, stable_seed
from rewards import RewardStack
from rewards.metrics import rates
from rewards.terms.solo_gain import SoloGain

TASK_SEEDS_PER_RUN = 10_000_000  # training tasks of run seed s are s * this + 0, 1, 2, ...


def total(accelerator: Accelerator, values: Tensor) -> Tensor:
    """Sum over all processes."""
    return accelerator.reduce(values.to(accelerator.device), reduction="sum").to(values.device)


class Collector:
    """Plays an update's episodes and makes rows of them.

    Args:
        model: base, adapters and critics.
        args: see `MultiAgentPPOConfig`.
        players: play the training tasks.
        rewards: the terms and their weights or schedules.
        policies: who sits in each seat, or a mix of them.
        accelerator: says which share of the episodes is this process's.
        on_rollouts: called on every process with the update's number, the episodes and their reward breakdowns.

    `metrics` is where numbers for the log are put, by name; whoever logs them empties it. `reward_weights` is to be a
    callback of the trainer: it moves the weights that hold a budget; and so is `engine_weights`, which tells the engine
    of new adapters.
    """

    def __init__(
        self,
        model: TeamPolicy,
        args: MultiAgentPPOConfig,
        players: RolloutRunner,
        rewards: RewardStack,
        policies: Mapping[Seat, Player | Mix],
        accelerator: Accelerator,
        on_rollouts: Callable[[int, list, list], None] | None = None,
    ):
        self.model, self.args, self.players, self.rewards = model, args, players, rewards
        self.policies, self.accelerator, self.on_rollouts = policies, accelerator, on_rollouts
        self.metrics: dict[str, list[float]] = defaultdict(list)
        self._total = partial(total, accelerator)
        self.reward_weights = RewardWeights(rewards, self._total)
        self.engine_weights = EngineWeights(players.engine)
        self._solo = any(isinstance(term, SoloGain) and term.weight for term in rewards.terms)
        if args.kl_reference == "start" or args.advantage == "counterfactual" or self._solo:
            model.snapshot_reference()

    def learns(self, player: Player) -> bool:
        """Whether a player is an adapter that is trained."""
        return player in self.model.adapters

    def _reference(self, player: Player) -> str | None:
        """The adapter of a chat in the reference pass."""
        return reference_name(player) if self.args.kl_reference == "start" and self.learns(player) else BASE

    def _frozen(self, player: Player) -> Player:
        return reference_name(player) if self.learns(player) else player

    @torch.no_grad()
    def collect(self, update: int) -> list[dict[Seat, SeatSample]]:
        """Play this process's share of an update; rows with rewards, values and advantages."""
        args, world = self.args, self.accelerator.num_processes
        give_back_freed_memory()
        share = args.episodes_per_update // world
        first = args.seed * TASK_SEEDS_PER_RUN + update * args.episodes_per_update
        first += self.accelerator.process_index * share
        started, sampling_seed = time.perf_counter(), stable_seed(args.seed, update)
        rollouts = self.players.play(range(first, first + share), sampling_seed)
        self.engine_weights.check(rollouts)
        if self._solo:
            starts = [reference_name(adapter) for adapter in self.model.adapters]
            rollouts = counterfactual.with_solo(self.players, rollouts, starts, sampling_seed)
        rewards = self.reward_weights.at(update)
        breakdowns = [rewards.score(rollout.episode) for rollout in rollouts]
        episodes = [
            {
                seat: SeatSample(
                    trace=rollout.traces[seat],
                    trainable=not rollout.fault and self.learns(rollout.traces[seat].player),
                    terms_MK=torch.tensor([*breakdown.weighted(seat).values()], dtype=torch.float32),
                )
                for seat in rollout.episode.seats
            }
            for rollout, breakdown in zip(rollouts, breakdowns, strict=True)
        ]
        learned_from = zip(episodes, rollouts, strict=True)
        self.reward_weights.count(
            [(r.episode, seat) for rows, r in learned_from for seat in rows if rows[seat].trainable]
        )
        if args.advantage == "counterfactual":
            self._add_baselines(episodes, rollouts, rewards, sampling_seed)
        self.metrics["seconds/play"].append(time.perf_counter() - started)
        give_back_freed_memory()  # the caches of the chats
        started = time.perf_counter()
        self._add_reference_and_values(episodes)
        self.metrics["seconds/reference"].append(time.perf_counter() - started)
        self._add_advantages([row for rows in episodes for row in rows.values()])
        self._record_play(rollouts, breakdowns)
        if self.on_rollouts:
            self.on_rollouts(update, [rollout.episode for rollout in rollouts], breakdowns)
        return episodes

    def _add_reference_and_values(self, episodes: list[dict[Seat, SeatSample]]) -> None:
        """One pass through the reference: hidden states for the critics, log-probabilities for the KL where it counts.

        Features of the reference do not move while the adapters learn, so the critics read them as often as they need
        without another pass.
        """
        self.model.eval()
        own: dict[int, Tensor] = {}
        size = len(episodes) // (self.args.num_mini_batches * self.args.gradient_accumulation_steps)
        for start in range(0, len(episodes), size):  # as many at once as in learning
            part = episodes[start : start + size]
            order = lambda r: (str(self._reference(r.trace.player)), str(r.trace.adapter))  # noqa: E731
            rows = sorted((r for rows in part for r in rows.values()), key=order)  # each of both in one piece
            batch = collate(rows, self.players.chat.eos, self.accelerator.device)
            spans = spans_of([self._reference(row.trace.player) for row in rows])
            ids_RT, mask_RT, prefix_hidden_RTH = batch.input_ids_RT, batch.attention_mask_RT, batch.prefix_hidden_RTH
            if self.args.kl_coef:
                scores, hidden_RTH = self.model.score(
                    spans, ids_RT, mask_RT, batch.rows_N, batch.columns_N, self.args.temperature, prefix_hidden_RTH
                )
                tokens = [sum(turn.stop - turn.start for turn in row.trace.turns) for row in rows]
                for row, reference_N in zip(rows, scores.logprobs_N.split(tokens), strict=True):
                    row.reference_N = reference_N
            else:
                hidden_RTH = self.model.hidden(
                    spans, ids_RT, prefix_hidden_RTH, attention_mask=mask_RT, use_cache=False
                )
            features_JH = hidden_RTH[batch.prompt_ends_J].float()
            for row, features_KH in zip(rows, features_JH.split([len(r.trace.turns) for r in rows]), strict=True):
                own[id(row)] = features_KH
        for rows in episodes:
            for seat, row in rows.items():
                others = [r for s, r in rows.items() if s != seat] if self.args.critic == "central" else []
                # turn -1, of who has had none yet, reads as zeros
                beside = [nn.functional.pad(own[id(r)], (0, 0, 0, 1))[r.trace.latest(row.trace)] for r in others]
                row.features_KF = torch.cat([own[id(row)], *beside], dim=-1)
                row.values_K = torch.zeros(len(row.trace.turns))
                if self.learns(row.trace.player):
                    row.values_K = self.model.values({row.trace.adapter: row.features_KF})[row.trace.adapter].cpu()

    def _add_baselines(
        self, episodes: list[dict[Seat, SeatSample]], rollouts: list[Rollout], rewards: RewardStack, sampling_seed: int
    ) -> None:
        for row in (row for rows in episodes for row in rows.values()):
            row.baseline_K = torch.full_like(row.rewards_K, torch.nan)
        for seat in self.policies:
            learning = [i for i, rows in enumerate(episodes) if self.learns(rows[seat].trace.player)]
            spoken = [rollouts[i] for i in learning]
            silenced = counterfactual.replay_muted(self.players, spoken, seat, self._frozen, sampling_seed)
            baselines = counterfactual.message_baselines(spoken, silenced, seat, rewards.score, self.args.gamma)
            for i, baseline_K in zip(learning, baselines, strict=True):
                episodes[i][seat].baseline_K = baseline_K

    def _add_advantages(self, rows: list[SeatSample]) -> None:
        lengths = self.accelerator.gather(torch.tensor(max(len(r.rewards_K) for r in rows), device=self.args.device))
        longest = int(lengths.max())
        rewards_RK, mask_RK = stack_turns(rows, "rewards_K", longest)
        terms_RMK, _ = stack_turns(rows, "terms_MK", longest)
        values_RK, _ = stack_turns(rows, "values_K", longest)
        advantages_RK, returns_RK = losses.gae(rewards_RK, values_RK, mask_RK, self.args.gamma, self.args.lam)
        if self.args.advantage == "counterfactual":
            baselines_RK, _ = stack_turns(rows, "baseline_K", longest)
            credit_RK = losses.returns_to_go(rewards_RK, self.args.gamma) - baselines_RK
            advantages_RK = torch.where(credit_RK.isnan(), advantages_RK, credit_RK)
        for seat in self.policies:
            mine = torch.tensor([row.seat == seat for row in rows])
            self.metrics[f"{seat}/explained_variance"].append(
                losses.explained_variance(values_RK[mine], returns_RK[mine], mask_RK[mine])
            )
            terms_MRK = terms_RMK[mine].transpose(0, 1)
            shares_M = losses.advantage_shares(terms_MRK, mask_RK[mine], self.args.gamma, self.args.lam)
            if self.args.advantage == "counterfactual":
                self.metrics[f"{seat}/message_credit"].append(float(credit_RK[mine].nanmean()))
            for term, share in zip(self.rewards.names, shares_M.tolist(), strict=True):
                self.metrics[f"{seat}/advantage_share/{term}"].append(share)
            advantages_RK[mine] = losses.whiten(advantages_RK[mine], mask_RK[mine], self._total)
        for row, advantages_K, returns_K in zip(rows, advantages_RK, returns_RK, strict=True):
            row.advantages_K = advantages_K[: len(row.rewards_K)]
            row.returns_K = returns_K[: len(row.rewards_K)]

    def _record_play(self, rollouts: list[Rollout], breakdowns: list) -> None:
        played = [rollout.episode for rollout in rollouts]
        for name, rate in rates(played).items():
            self.metrics[f"team/{name}"].append(math.nan if rate is None else rate)
        for term in self.rewards.scheduled:
            self.metrics[f"weight/{term}"].append(breakdowns[0].weights[term])
        others = {p for e in played for p in e.players.values()} - set(self.model.adapters)
        for other in sorted(others):
            among = rates([episode for episode in played if other in episode.players.values()])
            for name in ("success", "j"):
                self.metrics[f"with/{other}/{name}"].append(math.nan if among[name] is None else among[name])
        for seat in self.policies:
            for term in self.rewards.names:
                totals = [breakdown.term_total(seat, term) for breakdown in breakdowns]
                self.metrics[f"{seat}/reward/{term}"].append(float(np.mean(totals)))
            self.metrics[f"{seat}/reward"].append(float(np.mean([b.total(seat) for b in breakdowns])))
            lengths = [t.stop - t.start for rollout in rollouts for t in rollout.traces[seat].turns]
            self.metrics[f"{seat}/generated_tokens"].append(float(sum(lengths) / len(rollouts)))
