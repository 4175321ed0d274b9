"""What a battery comes to for some teams: who plays what, and what cannot be played. Loads no torch."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from envs import ENVIRONMENTS, CoopEnv, find_environment
from envs.core.lookup import find, nearest
from envs.core.tokens import message_tokens
from envs.scripted.partners import PARTNERS
from envs.scripted.registry import OWN, find_partner, partners_of
from marl_coop.config import policies
from marl_coop.config.battery import OTHERS, Battery, Condition
from marl_coop.config.builders import EnvMaker, env_maker, laid_over
from marl_coop.config.errors import ConfigError
from marl_coop.config.policies import Entry
from marl_coop.config.schema import Config
from marl_coop.evaluation.ceiling import IDEAL
from marl_coop.evaluation.results import Trained, Unplayed
from marl_coop.evaluation.seating import Seating
from marl_coop.experiment.teams import WARM, Team, find_team
from marl_coop.runs.rundir import RunError

TRIED = 16  # tasks on which it is seen whether a budget is enough
EVERY_PARTNER = PARTNERS | {name: partner for own in OWN.values() for name, partner in own.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedMatch:
    """A team in a condition, its players in the words of the section `policies`.

    `setting` is the condition of the battery, `condition` its name, with that of the partner where there are several.
    """

    who: str
    condition: str
    setting: Condition
    make_env: EnvMaker
    seating: Seating[Entry]

    @property
    def needs_model(self) -> bool:
        """Whether anybody plays in it who is no scripted partner."""
        return not all(map(policies.is_scripted, (*self.seating.own, *(self.seating.partner or ()))))


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All matches of a battery, in the order of its conditions, and what cannot be played.

    `teams` are those that are evaluated; `floor`, `start` and `ceiling` are the bars that stand beside them. `trained`
    is what those of all these that were trained are seeds of, by name.
    """

    battery: Battery
    config: Config
    teams: Sequence[Team]
    floor: Team | None
    start: Team | None
    ceiling: Team | None
    matches: Sequence[PlannedMatch]
    unplayed: Sequence[Unplayed]
    trained: Mapping[str, Trained]

    def pairs(self) -> Iterator[tuple[tuple[str, str], tuple[str, str]]]:
        """The differences to take, as (who, condition) minus (who, condition).

        In each condition every team minus the floor and minus the start, and each condition minus the one that it is
        `against`: of every team, or where the condition has a team of its own, every other team in the one that it is
        against minus that.
        """
        teams = [team.name for team in self.teams]
        played = {(match.who, match.condition): match for match in self.matches}
        for (who, condition), match in played.items():
            for bar in (self.floor, self.start):
                if bar and (bar.name, condition) in played and who in teams and who != bar.name:
                    yield (who, condition), (bar.name, condition)
            against, own = match.setting.against, match.setting.team
            if against is None:
                continue
            if own is None and (who, against) in played:
                yield (who, condition), (who, against)
            elif own == who:
                yield from (((team, against), (who, condition)) for team in teams if (team, against) in played)


def make_plan(battery: Battery, teams: Sequence[Team], config: Config, source: str) -> Plan:
    """Who plays what.

    Args:
        teams: who is evaluated.
        config: the experiment whose evaluation the conditions change.
        source: the file of the battery, for errors.

    Raises:
        ConfigError: a condition has an argument that no environment has, or names a scripted partner that is not there,
            or a team cannot play the experiment's environment.
        RunError: it names nobody.
    """
    roster = _Roster(teams, config.seed)
    begun = None if battery.start == WARM and not config.warmup.steps else battery.start  # it would be the base again
    for key in ("floor", "start", "ceiling"):
        try:
            _check_scripted(getattr(battery, key), key)
        except ConfigError as error:
            raise ConfigError(error.problem, error.keys, source) from error
    names = battery.floor, begun, battery.ceiling
    bars = [None if name is None else roster.team(name) for name in names]
    unplayed: list[Unplayed] = []
    for place, bar in enumerate(bars):
        if bar and (reason := _who_cannot_play(bar.policies, config.make_evaluation_env)):
            unplayed.append(Unplayed(bar.name, "", reason))
            bars[place] = None
    floor, start, ceiling = bars
    for team in teams:
        if reason := _who_cannot_play(team.policies, config.make_evaluation_env):
            raise RunError(f"{team.name!r} cannot be evaluated: {reason}")
    matches: list[PlannedMatch] = []
    for index, setting in enumerate(battery.conditions):
        try:
            _check(setting, config)
        except ConfigError as error:
            raise ConfigError(error.problem, ("conditions", index, *error.keys), source) from error
        try:
            make_env = _environment(setting, config)
        except (ValueError, RuntimeError) as error:
            unplayed.append(Unplayed("", setting.name, f"{config.env['name']}: {error}"))
            continue
        if reason := _lacks(make_env(), setting):
            unplayed.append(Unplayed("", setting.name, reason))
            continue
        for name, team, partner in roster.sides(setting, floor, [bar for bar in bars if bar]):
            if partner is not None and (reason := _who_cannot_play(partner.policies, make_env)):
                if Unplayed("", name, reason) not in unplayed:
                    unplayed.append(Unplayed("", name, reason))
                continue
            seating = Seating(team.policies, partner and partner.policies, setting.swapped)
            match = PlannedMatch(who=team.name, condition=name, setting=setting, make_env=make_env, seating=seating)
            if reason := _who_cannot_play(seating.own, make_env):
                unplayed.append(Unplayed(team.name, name, reason))
            else:
                matches.append(match)
    return Plan(
        battery=battery,
        config=config,
        teams=teams,
        floor=floor,
        start=start,
        ceiling=ceiling,
        matches=matches,
        unplayed=unplayed,
        trained=roster.trained,
    )


class _Roster:
    """All teams by name, each found once. `seed` is that of the experiment, whose warm-up `warm` is."""

    def __init__(self, teams: Sequence[Team], seed: int):
        self.evaluated, self._seed = list(teams), seed
        self._known = {team.name: team for team in teams}

    def team(self, name: str) -> Team:
        if name not in self._known:
            self._known[name] = find_team(name)
        return self._known[name]

    @property
    def trained(self) -> dict[str, Trained]:
        """What those that were trained are seeds of."""
        runs = {name: team.trained for name, team in self._known.items() if team.trained}
        return runs | ({WARM: Trained(WARM, self._seed)} if WARM in self._known else {})

    def sides(
        self, setting: Condition, floor: Team | None, bars: Sequence[Team]
    ) -> Iterator[tuple[str, Team, Team | None]]:
        """Name of the condition, team and partner of each match: of all teams, or the condition's own, and the bars."""
        partners: dict[str, Team | None] = {setting.name: None}
        if setting.partner == OTHERS:
            rivals = _each_once([*self.evaluated, *([floor] if floor else [])])
            partners = {f"{setting.name}:{rival.name}": rival for rival in rivals}
        elif setting.partner is not None:
            partners = {setting.name: self.team(setting.partner)}
        found = [self.team(setting.team)] if setting.team is not None else self.evaluated
        for name, partner in partners.items():
            for team in _each_once([*found, *bars]):
                if setting.partner != OTHERS or team is not partner:
                    yield name, team, partner


def _each_once(teams: Sequence[Team]) -> list[Team]:
    return list({team.name: team for team in teams}.values())


def _check(setting: Condition, config: Config) -> None:
    """Raises ConfigError for a slip, and not for what this environment happens to lack: an argument that no environment
    has, a value that none takes, or a scripted partner that is not there."""
    classes = list(dict.fromkeys((config.make_env.cls, *ENVIRONMENTS)))
    known = {"name": None} | {field: None for cls in classes for field in cls.Config.model_fields}
    for key in setting.env:
        if key not in known:
            raise ConfigError(f"no environment has this argument; did you mean {nearest(key, known)!r}?", ("env", key))
        _check_value(key, setting.env[key], [cls for cls in classes if key in cls.Config.model_fields])
    for key in ("team", "partner"):
        _check_scripted(getattr(setting, key), key)


def _check_value(key: str, value: Any, classes: Sequence[type[CoopEnv]]) -> None:
    """Raises ConfigError where all of some environments refuse the value of an argument that they have."""
    refused: list[ConfigError] = []
    for cls in classes:
        try:
            env_maker({"name": f"{cls.__module__}:{cls.__qualname__}", key: value}, ("env",))
        except ConfigError as error:
            if error.keys[:2] != ("env", key):
                return
            refused.append(error)
        else:
            return
    if refused:
        raise refused[0]


def _check_scripted(who: str | None, key: str) -> None:
    """Raises ConfigError where somebody is a scripted partner that no environment has."""
    kind, _, name = (who or "").partition(":")
    if kind == "scripted":
        try:
            find(name, EVERY_PARTNER, kind="scripted partner")
        except ValueError as error:
            raise ConfigError(str(error), (key,)) from error


def _environment(setting: Condition, config: Config) -> EnvMaker:
    """The experiment's environment of evaluation, as the condition changes it.

    Raises:
        ValueError, RuntimeError: it cannot be made.
    """
    section = {key: value for key, value in config.env.items() if key != "curriculum"}
    name = setting.env.get("name", config.env["name"])
    for key in setting.env:
        if key != "name" and key not in find_environment(name).Config.model_fields:
            raise ValueError(f"it has no {key!r}")
    made = env_maker(laid_over(laid_over(section, config.evaluation.env), setting.env), ("env",))
    env = made()
    if setting.advice is None:
        return made
    return EnvMaker(made.cls, made.config.model_copy(update={"system_prompt": f"{env.system_prompt} {setting.advice}"}))


def _lacks(env: CoopEnv, setting: Condition) -> str | None:
    """What a condition needs and an environment has not; None: nothing."""
    if len(env.seats) == 1 and (setting.partner is not None or setting.swapped):
        return "one seat alone has no partner, and none to be swapped with"
    if setting.best_of > 1 and not env.VISIBLE_TESTS:
        return f"{type(env).__name__} has no tests that the seats can run, so no attempt can be chosen"
    return _cut_by_budget(env)


def _cut_by_budget(env: CoopEnv) -> str | None:
    """Why a budget would measure its own size and not the team: it cuts replies of ideal play; None: it does not."""
    if env.config.budget is None:
        return None
    if IDEAL not in partners_of(env):
        return f"{type(env).__name__} has no ideal partner to show that env.budget would cut no right reply"
    free = type(env)(env.config.model_copy(update={"budget": None}))
    needed = max(_budget_of_ideal_play(free, seed) for seed in range(TRIED))
    if needed > env.config.budget:
        return f"env.budget: {env.config.budget} cuts replies of ideal play; give {needed} or more"
    return None


def _budget_of_ideal_play(env: CoopEnv, seed: int) -> int:
    """The least budget that cuts no reply of ideal play on a task. What comes of the last replies is not asked for."""
    partner, most, spent = find_partner(IDEAL, env), 0, 0
    env.reset(seed=seed)
    for step in range(len(env.schedule)):
        if not env.agents:
            break
        replies = {seat: partner.reply(env, seat) for seat in env.acting}
        to_come = len(env.seats) * (len(env.schedule) - step)
        most = max(most, spent + to_come * max(map(message_tokens, replies.values())))
        spent += sum(map(message_tokens, replies.values()))
        if step < len(env.schedule) - 1:
            env.step(replies)
    return most


def _who_cannot_play(entries: Sequence[Entry], make_env: EnvMaker) -> str | None:
    for entry in entries:
        if entry != WARM:
            try:
                policies.check(entry, [make_env])
            except ValueError as error:
                return str(error)
    return None
