"""Plays matches with a model: one frozen base, and on it the adapters of all teams that are evaluated."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from envs import CoopEnv
from envs.core.episode import Episode, Phase
from marl_coop.config import policies
from marl_coop.config.policies import Entry
from marl_coop.config.schema import Config
from marl_coop.evaluation.matches import Match
from marl_coop.evaluation.seating import Seating
from marl_coop.experiment import checks, setup
from marl_coop.experiment.libraries import quiet_libraries
from marl_coop.experiment.teams import WARM, environment, identity, renamed
from marl_coop.players import Mix, Player
from marl_coop.policy.adapters import fingerprint
from marl_coop.policy.allocator import keep_freed_memory
from marl_coop.policy.loading import max_positions
from marl_coop.policy.team import TeamPolicy
from marl_coop.rollout import limits
from marl_coop.rollout.chat import Chat
from marl_coop.rollout.endpoint import Endpoint
from marl_coop.rollout.runner import RolloutRunner
from marl_coop.rollout.trajectory import ReplaySpec
from marl_coop.runs.rundir import RunError


class ModelPlay:
    """What samples the replies of all teams of a battery: a `marl_coop.evaluation.matches.Play`.

    Args:
        config: the experiment that has the base model, the sampling and the warm-up.
        entries: all that will sit in a seat.
        games: the environments that are to be played, as far as `obstacle` finds none.

    Raises:
        ConfigError: the model cannot be used, or is not sampled from as its own forward means, or nothing confines the
            code that it writes.
        RunError: an adapter is not of this base.
    """

    def __init__(self, config: Config, entries: Iterable[Entry], games: Iterable[CoopEnv]):
        keep_freed_memory()
        quiet_libraries()
        games = list(games)
        checks.check_confinement(config, map(type, games))
        self.config, self.args = config.settled(setup.dtype_of(config)), setup.training_arguments(config)
        self.base, self.tokenizer = setup.load_model(config)
        self._lengths: dict[str, limits.Lengths] = {}
        playable = [self._longest(env) for env in games if self.obstacle(env) is None]
        if playable:
            checks.check_model(config, self.base, self.args.device, max(playable))
        named = {name for entry in entries for name in ([entry] if isinstance(entry, str) else entry)}
        self._warm = {WARM: self._warm_up()} if WARM in named else {}
        roster = {name: renamed(name, self._warm) for name in sorted(named)}
        self._adapters = policies.frozen_names({**config.policies, **roster})
        self.policy = self._make_policy({name for name in roster.values() if name in self._adapters})
        self.engine = setup.make_engine(self.policy, self.args)

    def _warm_up(self) -> str:
        """What `warm` stands for: the base where there is no warm-up, else an adapter, which comes from the cache where
        that has it."""
        if not self.config.warmup.steps:
            return "base"
        chat = self._chat(self.config.make_env())
        return f"frozen:{setup.warm_up(self.config, self.base, self.tokenizer, chat)}"

    def _make_policy(self, frozen: Iterable[Entry]) -> TeamPolicy:
        trained = policies.learners(self.config.policies)  # a team must have some; nobody plays with these
        policy = TeamPolicy(self.base, setup.lora_config(self.config, self.base), trained, critic_seats=1)
        for entry in sorted(map(str, frozen)):
            try:
                policy.add_frozen(self._adapters[entry], Path(entry.partition(":")[2]))
            except ValueError as error:
                raise RunError(f"{entry!r} cannot play: {error}") from error
        return policy.to(self.args.device)

    def seat(self, seating: Seating[Entry], env: CoopEnv) -> Seating[Player | Mix]:
        """Who sits where, once in an environment."""
        endpoint = partial(
            Endpoint, system=env.system_prompt, temperature=self.args.temperature, max_tokens=self._max_tokens(env)
        )

        def player(entry: Entry) -> Player | Mix:
            named = renamed(renamed(entry, self._warm), self._adapters)
            return policies.build_players({"": named}, env, endpoint)[""]

        return seating.map(player)

    def obstacle(self, env: CoopEnv) -> str | None:
        """Why the model cannot play an environment; None: it can."""
        longest, most = self._longest(env), max_positions(self.base.config)
        return f"a chat may come to {longest} tokens, and the model has {most} positions" if longest > most else None

    def identity(self, seating: Seating[Entry], env: CoopEnv) -> dict[str, Any]:
        """All that replies depend on beside environment, tasks and seeds, as plain data."""
        content = seating.map(lambda entry: identity(renamed(entry, self._warm)))
        return {
            "own": content.own,
            "partner": content.partner,
            "base": fingerprint(self.base),
            "model": self.config.model.model_dump(),
            "engine": self.args.engine,
            "temperature": self.args.temperature,
            "max_tokens": {str(phase): most for phase, most in self._max_tokens(env).items()},
        }

    def _chat(self, env: CoopEnv) -> Chat:
        return setup.make_chat(self.config, self.base, self.tokenizer, env)

    def _measured(self, env: CoopEnv) -> limits.Lengths:
        key = str(environment(env))
        if key not in self._lengths:
            self._lengths[key] = limits.measure(env, self._chat(env))
        return self._lengths[key]

    def _longest(self, env: CoopEnv) -> int:
        return self._measured(env).chat(self._max_tokens(env))

    def _max_tokens(self, env: CoopEnv) -> Mapping[Phase, int]:
        """Limits of replies: those of the section `training`, and where it has none, what the environment takes."""
        return limits.shortest(self._measured(env)) | self.args.max_tokens

    def __call__(self, tasks: Sequence[tuple[Match, int]], sampling_seed: int) -> list[Episode]:
        make_env = tasks[0][0].make_env
        env = make_env()
        seatings = [match.seating.at(env.seats, seed) for match, seed in tasks]
        specs = [
            ReplaySpec(task=env.make_task(seed), policies=seating, given={})
            for (_, seed), seating in zip(tasks, seatings, strict=True)
        ]
        limit, heat = self._max_tokens(env), self.args.temperature
        runner = RolloutRunner(make_env, seatings[0], self.engine, self._chat(env), limit, heat)  # specs say who plays
        return [rollout.episode for rollout in runner.replay(specs, sampling_seed)]
