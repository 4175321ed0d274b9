"""Plays a battery, keeps every episode under a key of its content, and measures. Loads torch only where a model plays.

In the folder of an evaluation: `episodes/<key>.jsonl`, `results.json` and `results.csv`, and `playing.json` until these
are written. The key is made of all that the episodes of a match depend on, adapters by their digests. So an evaluation
that was stopped goes on, one with another team or more episodes plays only what is new, and an adapter that was trained
further is never taken for the old one.
"""

import json
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, cast

from envs.core.env import CoopEnv
from envs.core.seeds import Stream, task_seed
from envs.scripted.registry import find_partner
from marl_coop import __version__
from marl_coop.config import policies
from marl_coop.config.policies import Entry
from marl_coop.evaluation.matches import Match, Play, play_matches, play_scripted
from marl_coop.evaluation.results import PlayedMatch, Results, Unplayed
from marl_coop.experiment.plan import Plan, PlannedMatch
from marl_coop.experiment.teams import environment
from marl_coop.players import Mix, Player
from marl_coop.runs.lock import held
from marl_coop.runs.progress import Progress

if TYPE_CHECKING:
    from marl_coop.experiment.model_play import ModelPlay

PAUSE_S = 5.0  # between two lines of progress


def play_battery(plan: Plan, folder: Path) -> Results:
    """Play what is not kept yet, measure, and write the results.

    Args:
        folder: of the evaluation; it is made.

    Raises:
        ConfigError, RunError: the model or an adapter cannot be used, or another process plays in the folder.
        EndpointError: an endpoint gave no reply.
    """
    (folder / "episodes").mkdir(parents=True, exist_ok=True)
    with held(folder):
        games = [(planned, planned.make_env()) for planned in plan.matches]
        model = _model(plan, [env for planned, env in games if planned.needs_model])
        unplayed = list(plan.unplayed)
        matches, conditions = [], {}
        for planned, env in games:
            reason = model.obstacle(env) if model and planned.needs_model else None
            if reason is not None:
                unplayed.append(Unplayed(planned.who, planned.condition, reason))
                continue
            matches.append((planned, _match(plan, planned, env, model, folder)))
            conditions[planned.condition] = _described(planned, env, matches[-1][1])
        announced = Results(
            who=[team.name for team in plan.teams],
            floor=plan.floor and plan.floor.name,
            start=plan.start and plan.start.name,
            ceiling=plan.ceiling and plan.ceiling.name,
            trained=plan.trained,
            conditions=conditions,
            played=[PlayedMatch(match, ()) for _, match in matches],
            rows=(),
            unplayed=unplayed,
        )
        announced.announce(folder)
        played = _play(plan, matches, model)
        by_name = {(one.match.who, one.match.condition): one for one in played}
        pairs = [(by_name[a], by_name[b]) for a, b in plan.pairs() if a in by_name and b in by_name]
        with Progress(len(played) + len(pairs), "measuring", "table", pause_s=PAUSE_S) as progress:
            results = announced.measured(played, pairs, progress.advance)
        results.write(folder)
    return results


def _model(plan: Plan, games: Sequence[CoopEnv]) -> "ModelPlay | None":
    """What plays these environments with a model, if anybody needs one."""
    entries = list(_entries(plan))
    if all(map(policies.is_scripted, entries)):
        return None
    from marl_coop.experiment.model_play import ModelPlay  # loads torch

    return ModelPlay(plan.config, entries, games)


def _entries(plan: Plan) -> Iterator[Entry]:
    for match in plan.matches:
        yield from match.seating.own
        yield from match.seating.partner or ()


def _match(plan: Plan, planned: PlannedMatch, env: CoopEnv, model: "ModelPlay | None", folder: Path) -> Match:
    setting = planned.setting
    seed = plan.battery.seed if setting.seed is None else setting.seed
    if model and planned.needs_model:
        seating, played_by = model.seat(planned.seating, env), model.identity(planned.seating, env)
    else:
        seating = planned.seating.map(lambda entry: cast(Player | Mix, find_partner(str(entry).partition(":")[2], env)))
        played_by = {"own": planned.seating.own, "partner": planned.seating.partner}
    key = {
        "version": __version__,
        "environment": environment(env),
        "swapped": setting.swapped,
        "best_of": setting.best_of,
        "seed": seed,
        **played_by,
    }
    digest = sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    return Match(
        who=planned.who,
        condition=planned.condition,
        make_env=planned.make_env,
        seating=seating,
        task_seeds=[task_seed(Stream.EVALUATION, seed, i) for i in range(setting.episodes or plan.battery.episodes)],
        sampling_seed=seed,
        best_of=setting.best_of,
        file=folder / "episodes" / f"{digest}.jsonl",
    )


def _play(plan: Plan, matches: list[tuple[PlannedMatch, Match]], model: "ModelPlay | None") -> list[PlayedMatch]:
    """The teams of a condition play together: the more chats a batch has, the less a reply costs. What the same players
    play of it has one file, and is played once."""
    groups: dict[tuple[str, Play], dict[Path, Match]] = {}
    for planned, match in matches:
        play = model if model and planned.needs_model else play_scripted
        groups.setdefault((planned.condition, play), {}).setdefault(match.file, match)
    total = sum(len(match.task_seeds) for group in groups.values() for match in group.values())
    kept = {}
    with Progress(total, "battery", "episode", pause_s=PAUSE_S) as progress:
        for (condition, play), group in groups.items():
            found = play_matches(list(group.values()), play, plan.battery.batch_size, progress.advance)
            kept |= {(condition, file): episodes for file, episodes in found.items()}
    return [PlayedMatch(match, kept[match.condition, match.file]) for _, match in matches]


def _described(planned: PlannedMatch, env: CoopEnv, match: Match) -> dict:
    """A condition as results have it."""
    described = planned.setting.model_dump(exclude={"name", "env", "episodes", "seed"})
    return {
        "environment": environment(env),
        "episodes": len(match.task_seeds),
        "seed": match.sampling_seed,
        **described,
    }
