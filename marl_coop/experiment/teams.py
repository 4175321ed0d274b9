"""Who is evaluated: from what a command line names to a policy for each seat. Loads no torch."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import file_digest, sha256
from os.path import expanduser
from pathlib import Path
from typing import Any

from envs import CoopEnv
from marl_coop.config import policies
from marl_coop.config.policies import Entry
from marl_coop.evaluation.results import Trained
from marl_coop.experiment.recorded import recorded_config
from marl_coop.runs import rundir
from marl_coop.runs.checkpoints import all_checkpoints
from marl_coop.runs.rundir import RunError

WARM = "warm"  # the base once it has learned the format of replies and nothing else


@dataclass(frozen=True, slots=True, kw_only=True)
class Team:
    """A name, as it was given, and what sits in each seat, in the words of the section `policies`.

    Attributes:
        policies: in the order of the seats; no entry is an adapter that is still trained.
        configuration: the file that says how the run was made that it comes from, if it comes from one.
        trained: what that run is one seed of.
        unfinished: the name of the last checkpoint of a run that has not ended, which plays in its place.
    """

    name: str
    policies: tuple[Entry, ...]
    configuration: Path | None = None
    trained: Trained | None = None
    unfinished: str | None = None


def find_team(who: str) -> Team:
    """The team of a name.

    Args:
        who: a run's folder or one of its checkpoints, `base`, `warm`, `scripted:NAME`, `frozen:FOLDER` or `URL#MODEL`.

    Raises:
        RunError: it is none of these, or a run that has no adapters yet.
    """
    if who == WARM or policies.is_no_adapter(who):
        return Team(name=who, policies=(who,))
    place = Path(expanduser(who))
    is_checkpoint = place in all_checkpoints(place.parent)
    if not is_checkpoint and not (place / "run.json").is_file():
        kinds = "base, warm, scripted:NAME, frozen:FOLDER or URL#MODEL"
        raise RunError(f"{who!r} is neither a run's folder nor one of its checkpoints, nor {kinds}")
    folder = place.parent if is_checkpoint else place
    saved = rundir.saved_policy(folder, place.name if is_checkpoint else None)
    configuration = rundir.configuration_of(folder)
    config = recorded_config(folder)
    trained = policies.learners(config.policies)
    frozen = {adapter: f"frozen:{saved / adapter}" for adapter in trained}
    seats = config.make_env.config.seats
    try:
        entries = [policies.with_snapshots(config.policies[seat], saved) for seat in seats]
    except ValueError as error:
        raise RunError(str(error)) from error
    record = rundir.recorded(folder)
    unfinished = saved.name if not is_checkpoint and saved != folder else None
    checkpoint = place.name if is_checkpoint else unfinished
    method = f"{record['name']} {checkpoint}" if checkpoint else record["name"]
    return Team(
        name=who,
        policies=tuple(renamed(entry, frozen) for entry in entries),
        configuration=configuration,
        trained=Trained(method, record["starts"][-1]["seed"]),
        unfinished=unfinished,
    )


def renamed(entry: Entry, names: Mapping[str, str]) -> Entry:
    """An entry with other names for some that it names."""
    if isinstance(entry, str):
        return names.get(entry, entry)
    return {names.get(name, name): weight for name, weight in entry.items()}


def identity(entry: Entry) -> Any:
    """What an entry is by its content, as plain data: the digest of an adapter's files in the place of its folder."""
    if not isinstance(entry, str):
        return [[identity(name), weight] for name, weight in entry.items()]
    kind, _, folder = entry.partition(":")
    return entry if kind != "frozen" else f"frozen:{_digest(Path(folder))}"


def _digest(adapter: Path) -> str:
    """The SHA-256 of a PEFT adapter, its configuration and its weights."""
    digest = sha256()
    for file in _files(adapter):
        with file.open("rb") as content:
            digest.update(f"{file.name} {file_digest(content, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()


def _files(adapter: Path) -> Iterator[Path]:
    return (file for file in sorted(adapter.glob("adapter_*")) if file.is_file())


def environment(env: CoopEnv) -> dict[str, Any]:
    """An environment as plain data: its class, and all of its arguments."""
    return {"name": f"{type(env).__module__}:{type(env).__name__}", **env.config.model_dump(mode="json")}
