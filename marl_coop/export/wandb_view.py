"""A saved view of a project at wandb in which the curves of a run stand in groups: a section for each question.

A view is of a project and shows all runs in it; which panels there are goes by what one run has logged.
"""

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import wandb

from envs.core.tokens import one_line

if TYPE_CHECKING:
    from wandb_workspaces.reports.v2 import LinePlot
    from wandb_workspaces.workspaces import Workspace

NAME = "marl-coop"
TEAM = {  # metric of a team -> title
    "success": "Success",
    "j": "J = CDR - CR",
    "cdr": "CDR: deferred rightly",
    "cr": "CR: gave in when right",
    "blend_rate": "Blends",
    "silence_rate": "Silent on what is needed",
    "message_tokens_per_episode": "Message tokens per episode",
    "parse_rate": "Readable replies",
}
LEARNER = {  # metric of a seat or adapter -> title
    "reward": "Reward per episode",
    "kl_to_reference": "KL to the reference",
    "entropy": "Entropy",
    "clip_fraction": "Clipped share of tokens",
    "explained_variance": "Explained variance of the critic",
    "value_loss": "Value loss",
}
TABLES = ("results", "transcripts/before", "transcripts/held_out", "transcripts/after")


def make_view(entity: str, project: str, logged: Collection[str]) -> "Workspace":
    """The view: results, reward terms, the learner itself, what was said.

    Args:
        entity, project: where at wandb.
        logged: names of what a run logs, such as `team/j` and `agent_0/entropy`.
    """
    from wandb_workspaces.reports.v2 import WeavePanelSummaryTable
    from wandb_workspaces.workspaces import Section, Workspace

    sections: dict[str, Sequence[Any]] = {
        "Team: in training and on unseen tasks": [*_plots(TEAM, logged, ("team", "eval"))],
        "Reward terms: share of the advantages": [*_terms("advantage_share", logged)],
        "Reward terms: what they pay": [*_terms("reward", logged)],
        "Learner": [*_plots(LEARNER, logged, _seats(logged))],
        "What was said": [WeavePanelSummaryTable(table_name=name) for name in TABLES],
    }
    made = [Section(name=name, panels=[*panels], is_open=True) for name, panels in sections.items() if panels]
    return Workspace(entity=entity, project=project, name=NAME, sections=made)


def _seats(logged: Collection[str]) -> list[str]:
    return sorted({name.partition("/")[0] for name in logged if name.endswith("/entropy")})


def _plots(titles: dict[str, str], logged: Collection[str], who: Sequence[str]) -> "Iterator[LinePlot]":
    """A plot of each metric, with a line for everybody of whom it is logged."""
    for metric, title in titles.items():
        if names := [f"{one}/{metric}" for one in who if f"{one}/{metric}" in logged]:
            yield _plot(title, names)


def _terms(kind: str, logged: Collection[str]) -> "Iterator[LinePlot]":
    """A plot of each reward term, with a line for each seat."""
    found: dict[str, list[str]] = {}
    for name in sorted(logged):
        _, middle, term = name.partition(f"/{kind}/")
        if middle:
            found.setdefault(term, []).append(name)
    for term, names in found.items():
        yield _plot(term.replace("_", " "), names)


def _plot(title: str, names: list[str]) -> "LinePlot":
    from wandb_workspaces.reports.v2 import LinePlot

    return LinePlot(title=title, x="update", y=[*names])


def save_view(project: str, logged: Collection[str]) -> str:
    """Save the view, a new one each time, and return its address.

    Args:
        project: its name, or entity/name; without an entity, it is the account's own.

    Raises:
        ValueError: wandb does not take it; the message is one line that says why and what to do.
        ModuleNotFoundError: wandb-workspaces is not installed.
    """
    entity, _, name = project.rpartition("/")
    try:
        view = make_view(entity or str(wandb.Api().default_entity or ""), name, logged)
        view.save()
        return view.url
    except (wandb.Error, OSError) as error:
        raise ValueError(f"the view is not taken by wandb: {one_line(error)}; see `wandb login`") from error
