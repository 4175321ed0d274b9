"""The first screen of a run as plain data: what was trained, and what came of it."""

import dataclasses
import math
import shlex
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import numpy as np

from envs.core.episode import Episode
from marl_coop.evaluation.battery_tables import grids
from marl_coop.evaluation.results import Results
from marl_coop.runs.played import AFTER, BEFORE, EVALUATION, TRAINING
from marl_coop.viewer.episodes import rounded
from marl_coop.viewer.source import Run
from marl_coop.viewer.text import all_visible
from rewards.metrics import METRICS, Flip, Metric, compare, flip_matrix, measure, of_players, seats_of
from rewards.metrics.rate import doc, faulted

Data = dict[str, Any]

RESULTS = {  # metric -> how a person calls it
    "success": "success",
    "j": "J = CDR − CR",
    "cdr": "CDR: deferred rightly",
    "cr": "CR: gave in when right",
    "j_answered": "J of answers, whatever the code does",
    "answer_realised": "code does as answered",
    "blend_rate": "blends",
    "silence_rate": "silent on what is needed",
    "textual_conflict_rate": "merge conflicts",
    "parse_rate": "readable replies",
    "message_tokens_per_episode": "message tokens",
    "generated_tokens_per_solved": "tokens per solved task",
}
CURVES = ("success", "j", "cdr", "cr", "message_tokens_per_episode")
LEARNING = ("kl_to_reference", "entropy", "clip_fraction", "explained_variance", "value_loss", "reward")


def overview(run: Run) -> Data:
    """What is known of a run as a whole; whatever it has not written is empty."""
    before, after = run.phase(BEFORE), _newest(run)
    return all_visible(
        {
            "name": run.name,
            "finished": run.finished,
            "last_written": run.last_written.isoformat(sep=" ", timespec="seconds") if run.last_written else None,
            "facts": _evaluated(run.evaluation) if run.evaluation else _facts(run),
            "config": run.config_text,
            "command": shlex.join(map(str, run.starts[-1].get("command", ()))) if run.starts else "",
            "notices": list(run.notices),
            "alarms": _alarms(run),
            "results": _results(run, before, after),
            "flips": _flips(run, before, after),
            "curves": [*_curves(run, TRAINING, "team/"), *_curves(run, EVALUATION, "eval/")],
            "terms": _terms(run),
            "learning": _learning(run),
            "tables": [grid._asdict() for grid in grids(run.evaluation)] if run.evaluation else [],
        }
    )


class _Side(NamedTuple):
    """Episodes that stand for what training has come to."""

    label: str
    episodes: list[Episode]


def _newest(run: Run) -> _Side:
    """What was played after training; of a run that has not come so far, its last evaluation, else its last update."""
    if after := run.phase(AFTER):
        return _Side("after training", after)
    for phase, tasks in ((EVALUATION, "unseen tasks"), (TRAINING, "training tasks")):
        if updates := run.updates(phase):
            return _Side(f"update {max(updates)}, on {tasks}", updates[max(updates)])
    return _Side("after training", [])


def _alarms(run: Run) -> list[str]:
    """Those that still ring."""
    last = {str(record.get("alarm")): record for record in run.alarms}
    return [str(record.get("text")) for record in last.values() if record.get("rings")]


def _facts(run: Run) -> dict[str, str]:
    """What was trained, in a few words each."""
    config, start = run.config, run.starts[-1] if run.starts else {}
    training, env, lora = (_section(config, name) for name in ("training", "env", "lora"))
    git, versions = _section(start, "git"), _section(start, "versions")
    done, planned = (int(run.metrics[-1]["update"]) if run.metrics else 0), training.get("num_updates")
    seated = _section(config, "policies").items()
    policies = ", ".join(seat if seat == player else f"{seat}: {player}" for seat, player in seated)
    facts = {
        "base model": _section(config, "model").get("name_or_path"),
        "adapters": f"LoRA rank {lora['r']}, alpha {lora.get('alpha')}" if "r" in lora else None,
        "seats": policies,
        "environment": env.get("name"),
        "updates": f"{done} of {planned}" if planned else str(done) if done else None,
        "episodes per update": training.get("episodes_per_update"),
        "seed": start.get("seed", config.get("seed")),
        "started": str(start["time"]).replace("T", " ")[:19] if "time" in start else None,
        "best checkpoint": Path(str(run.best["checkpoint"])).name if "checkpoint" in run.best else None,
        "starts": len(run.starts) if len(run.starts) > 1 else None,
        "code": f"{str(git['commit'])[:10]}{' with changes' if git.get('dirty') else ''}" if "commit" in git else None,
        "version": versions.get("marl-coop"),
    }
    return {name: str(value) for name, value in facts.items() if value not in (None, "")}


def _evaluated(results: Results) -> dict[str, str]:
    """Who was evaluated where."""
    places = dict.fromkeys(about["environment"]["name"].rpartition(":")[2] for about in results.conditions.values())
    facts = {
        "teams": ", ".join(results.who),
        "floor": results.floor,
        "start": results.start,
        "ceiling": results.ceiling,
    }
    facts |= {"environment": ", ".join(places)}
    return {name: value for name, value in facts.items() if value}


def _section(parent: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = parent.get(name)
    return section if isinstance(section, Mapping) else {}


def _results(run: Run, before: list[Episode], newest: _Side) -> Data:
    """The metrics of both sides, with their difference where they are of the same tasks. `labels` says what the sides
    are. The ceiling is known of a run that has ended.
    """
    after = newest.episodes
    metrics = of_players(run.learners)
    chosen = {name: metrics[name] for name in RESULTS}
    sides = [measure(side, chosen) if side else {} for side in (before, after)]
    same = before and {e.task.id for e in before} == {e.task.id for e in after}
    change = compare(before, after, chosen) if same else {}
    ceiling = _section(run.results, "ceiling")
    rows = []
    for name, label in RESULTS.items():
        cells = [_metric(side.get(name)) for side in (*sides, change)]
        if any(cells):
            ideal = _section(ceiling, name).get("value")
            better = METRICS[name].doc.partition(" is better")[0].rpartition(" ")[2]
            rows.append(
                {
                    "metric": name,
                    "label": label,
                    "doc": METRICS[name].doc,
                    "before": cells[0],
                    "after": cells[1],
                    "change": cells[2],
                    "ceiling": ideal if _is_number(ideal) else None,
                    "better": better if better in ("more", "less") else None,
                }
            )
    return {"labels": ["before training", newest.label], "episodes": [len(before), len(after)], "rows": rows}


def _metric(metric: Metric | None) -> Data | None:
    if metric is None or metric.value is None:
        return None
    return {name: rounded(value) for name, value in dataclasses.asdict(metric).items()}


def _flips(run: Run, before: list[Episode], newest: _Side) -> list[Data]:
    """How often seats that learn were right before and after the talk: `counts[partner right][before][after]`."""
    sides = [("before training", before), newest]
    judged = partial(seats_of, run.learners)
    matrices = [(label, flip_matrix(episodes, judged)) for label, episodes in sides if episodes]
    return [
        {
            "label": label,
            "counts": [[[counts[Flip(p, f, q)] for f in (True, False)] for p in (True, False)] for q in (True, False)],
        }
        for label, counts in matrices
        if any(counts.values())
    ]


def _curves(run: Run, phase: str, logged_as: str) -> list[Data]:
    """Each metric in each update, with the interval over its episodes; from the log alone where these are not there."""
    metrics, points, updates = of_players(run.learners), [], run.updates(phase)
    chosen = {name: metrics[name] for name in CURVES}
    logged = {int(record["update"]): record for record in run.metrics}
    for update in sorted({*updates, *logged}):
        known = [episode for episode in updates.get(update, ()) if not faulted(episode)]
        measured = measure(known, chosen) if known else {}
        for name in CURVES:
            point = _metric(measured.get(name))
            value = logged.get(update, {}).get(logged_as + name)
            if point is None and _is_number(value):
                point = {"value": rounded(value), "low": None, "high": None, "n": None}
            if point:
                points.append({"metric": name, "on": phase, "update": update, **point})
    return points


def _terms(run: Run) -> list[Data]:
    """Of each reward term that moves anything: its share of the advantages and what it pays, a number per update, means
    over the seats."""
    names = dict.fromkeys(key.partition("/advantage_share/")[2] for record in run.metrics for key in record)
    found = []
    for name in filter(None, names):
        share = [_over_seats(record, f"/advantage_share/{name}") for record in run.metrics]
        if any(share):
            pay = [_over_seats(record, f"/reward/{name}") for record in run.metrics]
            weights = {term.name: term for term in run.stack.terms} if run.stack else {}
            about = weights[name].__doc__ if name in weights else ""
            found.append(
                {
                    "term": name,
                    "doc": doc(type(weights[name])).split(". ")[0] if about else "",
                    "share": share,
                    "pay": pay,
                    "updates": [record["update"] for record in run.metrics],
                }
            )
    return sorted(found, key=lambda term: -float(np.mean([share or 0.0 for share in term["share"]])))


def _learning(run: Run) -> list[Data]:
    """What the learner logs of itself, of each seat or adapter in each update."""
    return [
        {"metric": name, "who": who, "update": record["update"], "value": rounded(value)}
        for record in run.metrics
        for key, value in record.items()
        for who, _, name in [key.rpartition("/")]
        if name in LEARNING and who and "/" not in who and _is_number(value)
    ]


def _over_seats(record: Mapping[str, Any], ending: str) -> float | None:
    values = [value for key, value in record.items() if key.endswith(ending) and _is_number(value)]
    return rounded(float(np.mean(values))) if values else None


def _is_number(value: Any) -> TypeGuard[float]:
    """Whether a record has a finite number there; a run that diverged logs others."""
    return isinstance(value, int | float) and math.isfinite(value)
