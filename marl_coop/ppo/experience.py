"""From the current adapters to rows that can be learned from: play, score, value, advantage.

    play       every process plays its share of the episodes with the current adapters
    score      reward terms on the episodes -> one number per turn
    value      one pass through the frozen reference: features for the critics, log-probabilities for the KL
    advantage  GAE, the other plays of the task, or a silent replay: `marl_coop.ppo.advantages`

Axes in names: R rows, T positions, N action tokens, J turns of all rows (flat), K turns of one row, M reward terms.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeGuard

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn

from envs.core.episode import Episode
from envs.core.seeds import Stream, stable_seed, task_seed
from envs.core.task import Seat
from marl_coop.players import BASE, Mix, Player, partner_name
from marl_coop.policy.allocator import give_back_freed_memory
from marl_coop.policy.routed_lora import spans_of
from marl_coop.policy.team import TeamPolicy, reference_name
from marl_coop.ppo import counterfactual
from marl_coop.ppo.advantages import add_advantages
from marl_coop.ppo.batch import SeatSample, collate, micro_batches
from marl_coop.ppo.config import MultiAgentPPOConfig
from marl_coop.ppo.engine_weights import Ahead, EngineWeights
from marl_coop.ppo.importance import add_old_logprobs
from marl_coop.ppo.metrics import MeanMetrics
from marl_coop.ppo.processes import most, total
from marl_coop.ppo.reward_weights import RewardWeights
from marl_coop.profiling import phase
from marl_coop.rollout.runner import RolloutRunner
from marl_coop.rollout.trajectory import Rollout
from marl_coop.runs.records import Credit, TurnCredit
from rewards import RewardStack
from rewards.metrics import HEADLINES, cases, of_players, rates

logger = logging.getLogger(__name__)


def reads_start(args: MultiAgentPPOConfig, rewards: RewardStack) -> bool:
    """Whether training reads the adapters as it began with them, however far they are by now."""
    return args.kl_reference == "start" or args.advantage == "counterfactual" or rewards.plays_alone


class Collector:
    """Plays an update's episodes and makes rows of them.

    Args:
        model: base, adapters and critics.
        args: see `MultiAgentPPOConfig`.
        players: play the training tasks.
        rewards: the terms and their weights or schedules.
        policies: who sits in each seat, or a mix of them.
        accelerator: says which share of the episodes is this process's.
        on_rollouts: called on every process with the update's number, the episodes, their reward breakdowns and what
            is learned from each (`marl_coop.runs.records.Credit`).

    `metrics` has the numbers for the log; whoever logs them takes them. `reward_weights` is to be a
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
        on_rollouts: Callable[[int, list, list, list], None] | None = None,
    ):
        self.model, self.args, self.players, self.rewards = model, args, players, rewards
        self.policies, self.accelerator, self.on_rollouts = policies, accelerator, on_rollouts
        self.metrics = MeanMetrics()
        self._total = partial(total, accelerator)
        self.reward_weights = RewardWeights(rewards, self._total)
        self._trained_on = {term.name for term in rewards.trained_on}
        self._learners = args.learners(model.adapters, 0)
        self._compared = False  # the adapters with the base, once each has learned
        self._solo = rewards.plays_alone
        if reads_start(args, rewards):
            model.snapshot_reference()
        if not all(past.selves for past in model.past.values()):
            model.snapshot_past(0)
        self.engine_weights = EngineWeights(players.engine)  # is told of the copies as well

    def learns(self, player: Player) -> TypeGuard[str]:
        """Whether a player is an adapter that learns in the update that was collected last."""
        return player in self._learners

    def _is_trained(self, player: Player) -> TypeGuard[str]:
        return player in self.model.adapters

    def _reference(self, player: Player) -> str | None:
        """The adapter of a chat in the reference pass."""
        return reference_name(player) if self.args.kl_reference == "start" and self._is_trained(player) else BASE

    def _frozen(self, player: Player) -> Player:
        return reference_name(player) if self._is_trained(player) else player

    @torch.no_grad()
    def collect(self, update: int) -> list[dict[Seat, SeatSample]]:
        """Play this process's share of an update; rows with rewards, values and advantages."""
        args, weights = self.args, self.engine_weights
        self._learners = args.learners(self.model.adapters, update)
        give_back_freed_memory()
        started = time.perf_counter()
        seeds, sampling_seed = self._seeds(update)
        if weights.ahead and weights.ahead.update == update:
            with phase("sampling"):  # in a thread of its own, for which this one waits
                rollouts, version = weights.ahead.rollouts.result(), weights.ahead.version
        else:
            rollouts, version = self.players.play(seeds, sampling_seed), weights.version
        weights.check(rollouts, version)
        if self._solo:
            starts = [reference_name(adapter) for adapter in self.model.adapters]
            rollouts = counterfactual.with_solo(self.players, rollouts, starts, sampling_seed)
        rewards = self.reward_weights.at(update)
        with phase("rewards"):
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
        muted: list[dict[Seat, Episode]] = [{} for _ in rollouts]
        if args.advantage == "counterfactual":
            muted = self._add_baselines(episodes, rollouts, rewards, sampling_seed)
        self.metrics.add("seconds/play", time.perf_counter() - started)
        self.players.engine.sleep()
        give_back_freed_memory()  # the caches of the chats
        started = time.perf_counter()
        if args.has_critic or args.kl_coef:
            with phase("reference", tokens=sum(len(r.trace.ids) for rows in episodes for r in rows.values())):
                self._add_reference_and_values(episodes)
            self.metrics.add("seconds/reference", time.perf_counter() - started)
        if args.importance != "sampler":
            started = time.perf_counter()
            learning = [r for rows in episodes for r in rows.values() if r.trace.turns and self.learns(r.trace.player)]
            parts, pad = self._micro_batches(learning), self.players.chat.eos
            with phase("old log-probabilities", tokens=sum(len(row.trace.ids) for row in learning)):
                add_old_logprobs(self.model, parts, args, pad, self.metrics)
            self.metrics.add("seconds/old_logprobs", time.perf_counter() - started)
        played = gather_object([rollout.episode for rollout in rollouts])  # by all processes
        terms = [term.name for term in rewards.terms if any(map(term.applies, played))]
        logged = {term for term in terms if term in self._trained_on}
        add_advantages(episodes, args, rewards.names, logged, self.metrics, self.accelerator)
        if update > (args.alternate_updates or 0) * (len(self.model.adapters) - 1):
            self._warn_of_idle_adapters([row for rows in episodes for row in rows.values()])
        self._record_play(played, rollouts, breakdowns, terms)
        if self.on_rollouts:
            credits = [self._credit(rows, replays) for rows, replays in zip(episodes, muted, strict=True)]
            self.on_rollouts(update, [rollout.episode for rollout in rollouts], breakdowns, credits)
        weights.ahead = None
        if args.async_play and update + 1 < args.max_steps // args.steps_per_update:
            weights.ahead = Ahead(update + 1, weights.version, self.players.play_ahead(*self._seeds(update + 1)))
        return episodes

    def _seeds(self, update: int) -> tuple[list[int], int]:
        """Of the tasks of this process's share of an update, and of their sampling."""
        plays = self.args.plays
        tasks = self.args.episodes_per_update // plays
        share = tasks // self.accelerator.num_processes
        first = update * tasks + self.accelerator.process_index * share
        seeds = [task_seed(Stream.TRAINING, self.args.seed, first + i) for i in range(share)]
        return [seed for seed in seeds for _ in range(plays)], stable_seed(self.args.seed, update)

    def _add_reference_and_values(self, episodes: list[dict[Seat, SeatSample]]) -> None:
        """One pass through the reference: hidden states for the critics, log-probabilities for the KL, if they count.

        Features of the reference do not move while the adapters learn, so the critics read them as often as they need
        without another pass.
        """
        self.model.eval()
        hidden = self.model.config.get_text_config().hidden_size
        own = {id(row): torch.zeros(0, hidden) for rows in episodes for row in rows.values()}
        played = [row for rows in episodes for row in rows.values() if row.trace.turns]
        played.sort(key=lambda r: (str(self._reference(r.trace.player)), str(r.trace.adapter)))  # each in one piece
        for rows in self._micro_batches(played):
            if not rows:
                self.model.idle()
                continue
            batch = collate(rows, self.players.chat.eos, self.accelerator.device, self.args.padding_free)
            spans = batch.layout.spans([self._reference(row.trace.player) for row in rows])
            if self.args.kl_coef:
                scores, hidden_RTH = self.model.score(spans, temperature=self.args.temperature, **batch.scored)
                tokens = [sum(turn.stop - turn.start for turn in row.trace.turns) for row in rows]
                for row, reference_N in zip(rows, scores.logprobs_N.split(tokens), strict=True):
                    row.reference_N = reference_N
            else:
                laid = batch.layout
                hidden_RTH = self.model.hidden(
                    spans, laid.input_ids_RT, batch.prefix_hidden_RTH, use_cache=False, **laid.told
                )
            features_JH = hidden_RTH[batch.prompt_ends_J].float()
            for row, features_KH in zip(rows, features_JH.split([len(r.trace.turns) for r in rows]), strict=True):
                own[id(row)] = features_KH
        for rows in episodes if self.args.has_critic else ():
            for seat, row in rows.items():
                others = [r for s, r in rows.items() if s != seat] if self.args.critic == "central" else []
                # turn -1, of who has had none yet, reads as zeros
                beside = [nn.functional.pad(own[id(r)], (0, 0, 0, 1))[r.trace.latest(row.trace)] for r in others]
                row.features_KF = torch.cat([own[id(row)], *beside], dim=-1)
                row.values_K = torch.zeros(len(row.trace.turns))
                if self.learns(row.trace.player):
                    adapter = row.trace.player
                    row.values_K = self.model.values({adapter: row.features_KF})[adapter].cpu()

    def _micro_batches(self, rows: Sequence[SeatSample]) -> list[list[SeatSample]]:
        """Micro-batches, as many on every process where they share the base out, and run every forward together; the
        last may be empty."""
        parts = micro_batches(rows, self.args.micro_batch_tokens, self.args.padding_free)
        return parts + [[]] * (most(self.accelerator, len(parts)) - len(parts)) if self.args.shard_base else parts

    def _warn_of_idle_adapters(self, rows: list[SeatSample]) -> None:
        """Say, once, which adapters still compute what the base does after they learned. Sampling and learning share
        their forward, so no ratio shows it."""
        if self._compared or not self.engine_weights.version:
            return
        self._compared = True
        for adapter in self.model.adapters:
            chats = (row.trace.ids for row in rows if row.trace.adapter == adapter and row.trace.turns)
            ids = next(chats, [self.players.chat.eos])
            ids_RT = torch.tensor([ids], device=self.accelerator.device)
            own_RTH, base_RTH = (self.model.hidden(spans_of([a]), ids_RT, use_cache=False) for a in (adapter, BASE))
            if torch.equal(own_RTH, base_RTH) and self.accelerator.is_main_process:
                logger.warning(
                    f"{adapter} still computes just what the base does after {self.engine_weights.version} steps: it "
                    "was taught nothing (equal rewards, a rate of 0), or its modules are not those that the model runs"
                )

    def _add_baselines(
        self, episodes: list[dict[Seat, SeatSample]], rollouts: list[Rollout], rewards: RewardStack, sampling_seed: int
    ) -> list[dict[Seat, Episode]]:
        """Give every message its baseline; for each episode, the replays in which nobody hears a seat."""
        muted: list[dict[Seat, Episode]] = [{} for _ in rollouts]
        for row in (row for rows in episodes for row in rows.values()):
            row.baseline_K = torch.full_like(row.rewards_K, torch.nan)
        for seat in self.policies:
            learning = [i for i, rows in enumerate(episodes) if self.learns(rows[seat].trace.player)]
            spoken = [rollouts[i] for i in learning]
            silenced = counterfactual.replay_muted(self.players, spoken, seat, self._frozen, sampling_seed)
            baselines = counterfactual.message_baselines(spoken, silenced, seat, rewards.score, self.args.gamma)
            for i, replay, baseline_K in zip(learning, silenced, baselines, strict=True):
                episodes[i][seat].baseline_K = baseline_K
                if replay is not rollouts[i]:  # it could speak
                    muted[i][seat] = replay.episode
        return muted

    def _credit(self, rows: Mapping[Seat, SeatSample], muted: Mapping[Seat, Episode]) -> Credit:
        """What is learned from an episode, rounded to what a reader can use."""
        decode = self.players.chat.tokenizer.decode
        turns = {}
        for seat, row in ((seat, row) for seat, row in rows.items() if row.trainable):
            names = ("values_K", "returns_K", "advantages_K")
            numbers = ([round(number, 4) for number in getattr(row, name).tolist()] for name in names)
            turns[seat] = tuple(
                TurnCredit(
                    value=value,
                    target=target,
                    advantage=advantage,
                    tokens=tuple(str(decode([token])) for token in row.trace.ids[turn.start : turn.stop]),
                    logprobs=tuple(round(logprob, 2) for logprob in turn.logprobs),
                )
                for turn, value, target, advantage in zip(row.trace.turns, *numbers, strict=True)
            )
        return Credit(turns=turns, muted=muted)

    def _record_play(
        self, played: list[Episode], rollouts: list[Rollout], breakdowns: list, terms: Sequence[str]
    ) -> None:
        unasked = () if self.players.acts else ("acting_rate",)
        metrics = of_players(self.model.adapters)
        found = {name: rate for name, rate in rates(played, metrics).items() if name not in unasked}
        self._add_rates("team", {name: found[name] for name in HEADLINES if name in found})
        self._add_rates("detail", {name: rate for name, rate in found.items() if name not in HEADLINES})
        for name in ("j", "j_stated"):
            self.metrics.add(f"team/{name}_cases", cases(played, name, metrics))
        if len(self.model.adapters) > 1:
            for adapter in filter(self.learns, self.model.adapters):
                own = of_players([adapter])
                self._add_rates(f"by/{adapter}", rates(played, {name: own[name] for name in ("j", "cdr", "cr")}))
        partners = [set(map(partner_name, episode.players.values())) for episode in played]
        for other in sorted(set().union(*partners) - set(self.model.adapters)):
            beside = [episode for episode, there in zip(played, partners, strict=True) if other in there]
            self._add_rates(f"with/{other}", rates(beside, {name: metrics[name] for name in ("success", "j")}))
        if self.args.advantage == "group":
            plays = self.args.plays
            left = [sum(not r.fault for r in rollouts[i : i + plays]) for i in range(0, len(rollouts), plays)]
            self.metrics.add("lost_groups", sum(n < 2 for n in left) / len(left), cases=len(left))
        for term in self.rewards.scheduled:
            self.metrics.add(f"weight/{term}", breakdowns[0].weights[term])
        for seat in self.policies:
            for rollout, breakdown in zip(rollouts, breakdowns, strict=True):
                if not rollout.fault:
                    for term in terms:
                        self.metrics.add(f"{seat}/reward/{term}", breakdown.term_total(seat, term))
                    self.metrics.add(f"{seat}/reward", breakdown.total(seat))
                tokens = sum(turn.stop - turn.start for turn in rollout.traces[seat].turns)
                self.metrics.add(f"{seat}/generated_tokens", tokens)

    def _add_rates(self, group: str, found: Mapping[str, float | None]) -> None:
        for name, rate in found.items():
            if rate is not None:
                self.metrics.add(f"{group}/{name}", rate)
