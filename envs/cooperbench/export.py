"""Played episodes as logs of CooperBench, so that the official `cooperbench eval` can confirm what they came to.

    write_episodes("logs", "mine", episodes)  # then: cooperbench eval -n mine-1

A log has of an episode what the benchmark's own agents leave: each branch as a patch, each seat's chat and what was
said. The record alone is enough for it; neither the dataset nor the repository is needed.
"""

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from envs.cooperbench.dataset import Pair
from envs.cooperbench.logs import AgentLog, Message, PairLog, write_log
from envs.cooperbench.submission import handed_in
from envs.cooperbench.tasks import built_by
from envs.core.episode import Episode, Merge
from envs.core.task import Seat
from envs.repository.actions import Reply, Submit, parse_actions
from envs.repository.git import Repository
from envs.sandbox.scratch import scratch

_TASK = re.compile(r"(?P<repo>\w+_task)/(?P<number>\d+)/(?P<first>\d+)-(?P<second>\d+):\d+")  # see `playing.make_task`


def pair_log(episode: Episode) -> PairLog:
    """The log of an episode of `CooperBench`.

    agent1 is agent_0. A turn is a message of the user (the observation) and one of the assistant (the reply), so the
    steps of an agent are the turns that it took. `status` is "Submitted" or, where all turns or tokens were spent
    before that, "LimitsExceeded"; `model` is who sat there. `result` has the policy and what the episode paid: the
    official evaluator knows only `lead_fallback`, and under another policy a conflict can come to something else.

    Raises:
        ValueError: the episode is of another environment.
    """
    found, merge = _TASK.fullmatch(episode.task.id), episode.outcome.merge
    if found is None or merge is None:
        raise ValueError(f"The episode of task {episode.task.id!r} is none of envs.cooperbench:CooperBench.")
    alone = len(episode.seats) == 1
    names = {seat: "solo" if alone else f"agent{place}" for place, seat in enumerate(episode.seats, 1)}
    pair = Pair(repo=found["repo"], number=int(found["number"]), features=(int(found["first"]), int(found["second"])))
    built = built_by(pair, episode.seats)
    agents = tuple(
        AgentLog(
            agent=names[seat],
            features=built[seat],
            patch=patch,
            chat=_chat(episode, seat),
            status="Submitted" if _submitted(episode, seat) else "LimitsExceeded",
            model=episode.players.get(seat, ""),
        )
        for seat, patch in zip(episode.seats, _patches(merge, episode.seats), strict=True)
    )
    return PairLog(
        repo=pair.repo,
        number=pair.number,
        features=pair.features,
        setting="solo" if alone else "coop",
        agents=agents,
        messages=tuple(
            Message(sender=names[turn.agent], receiver=names[partner], text=turn.message)
            for turn in episode.turns
            if turn.message
            for partner in episode.partners_of(turn.agent)
        ),
        result={
            "agent_framework": "marl-coop",
            "seed": episode.task.seed,
            "policy": merge.policy,
            "utility": episode.outcome.utility,
            "success": episode.outcome.success,
            "stop_reason": str(episode.stop_reason),
        },
    )


def write_episodes(logs: str | Path, run: str, episodes: Iterable[Episode]) -> tuple[str, ...]:
    """Write the logs of episodes into the folder of logs, and give the names of the runs that they are in.

    A run has one log of each pair. So `<run>-1` has the first episode of every pair, `<run>-2` the second, and so on.

    Raises:
        ValueError: the name is no name for a folder, an episode is of another environment (nothing is written then),
            or a run has a log of its pair already (`LogError`).
    """
    if not re.fullmatch(r"[\w.-]+", run):
        raise ValueError(f"write_episodes: run is {run!r}; give a name of letters, digits, _, . and - only.")
    played: Counter[Path] = Counter()
    for log in [pair_log(episode) for episode in episodes]:
        pair = log.folder(Path())
        played[pair] += 1
        write_log(Path(logs, f"{run}-{played[pair]}"), log)
    return tuple(f"{run}-{number}" for number in range(1, 1 + max(played.values(), default=0)))


def _patches(merge: Merge, seats: Iterable[Seat]) -> list[str]:
    """Each seat's branch as git's patch, against the files as they were."""
    with scratch() as folder:
        repository = Repository.create(folder / "bare.git")
        base, *sides = (
            repository.write({path: text.encode("utf-8") for path, text in files.items()})
            for files in (merge.base, *(merge.proposals[seat] for seat in seats))
        )
        return [handed_in(repository.diff(base, side)) for side in sides]


def _chat(episode: Episode, seat: Seat) -> tuple[dict[str, object], ...]:
    """The seat's turns as messages; `extra.round` says what both seats did at the same time."""
    return tuple(
        {"role": role, "content": text, "extra": {"round": turn.round}}
        for turn in episode.turns_of(seat)
        for role, text in (("user", turn.observation), ("assistant", turn.reply))
    )


def _submitted(episode: Episode, seat: Seat) -> bool:
    last = episode.turns_of(seat)[-1]
    parsed = parse_actions(last.reply, acts=True)
    return last.parse_error is None and isinstance(parsed, Reply) and Submit() in parsed.actions
