"""Who sits in a seat: an adapter, the frozen base, a partner that writes text, or one of several for each episode.

In YAML, under `policies`, a seat is given to

    agent_0                        an adapter of that name, which is trained; two seats may share one
    base                           the base model, frozen
    frozen:runs/first/agent_1      a PEFT adapter on disk, frozen
    past:agent_0                   one of the latest frozen snapshots of agent_0, an adapter that is trained here
    scripted:persuader             a scripted partner (`envs.scripted.registry`), or scripted:package.module:Class
    https://host/v1#model          a model behind an OpenAI-compatible endpoint
    {agent_1: 0.5, scripted:silent: 0.3, base: 0.2}     one of these, drawn by weight for each episode
"""

import re
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from itertools import chain, count
from os.path import expanduser
from pathlib import Path

from envs import CoopEnv
from envs.scripted.base import Partner
from envs.scripted.partners import PARTNERS
from envs.scripted.registry import find_partner
from marl_coop.credentials import check_address
from marl_coop.players import BASE, Mix, PastSelves, Player, past_folders

# ------------------------------------------------------------------------------------ what a configuration says

Entry = str | Mapping[str, float]  # a player in words, or a mix of them
_FOLDERS_OF_A_RUN = r"past|episodes|evaluations|tensorboard|wandb|checkpoint-\d+"  # adapters are saved beside these


def learners(policies: Mapping[str, Entry]) -> tuple[str, ...]:
    """The adapters that are trained, in order of the seats, each once."""
    names = (name for entry in policies.values() for name in _names(entry))
    return tuple(dict.fromkeys(name for name in names if _kind(name) == "adapter"))


def frozen(policies: Mapping[str, Entry]) -> dict[str, Path]:
    """The frozen adapters: the name that the team has for each, and its folder."""
    return {adapter: Path(expanduser(_value(name))) for name, adapter in frozen_names(policies).items()}


def starting_points(policies: Mapping[str, Entry], start_from: str | None) -> dict[str, Path]:
    """The folder of the saved adapter that each adapter begins as, by `lora.start_from`; empty where that is None."""
    if start_from is None:
        return {}
    place = Path(expanduser(start_from))
    alone = (place / "adapter_config.json").is_file()
    return {adapter: place if alone else place / adapter for adapter in learners(policies)}


def past(policies: Mapping[str, Entry]) -> tuple[str, ...]:
    """The adapters whose past selves play, each once."""
    names = (_value(name) for entry in policies.values() for name in _names(entry) if _kind(name) == "past")
    return tuple(dict.fromkeys(names))


def with_snapshots(entry: Entry, saved: Path) -> Entry:
    """An entry with the snapshots that a policy was saved with, as frozen adapters, in the place of past selves.

    Raises:
        ValueError: there are none.
    """
    if not past({"": entry}):
        return entry
    weights: dict[str, float] = {}
    for name, weight in (entry if isinstance(entry, Mapping) else {entry: 1.0}).items():
        if _kind(name) == "past":
            folders = past_folders(saved, _value(name)).values()
            if not folders:
                raise ValueError(f"{str(saved)!r} has no snapshots of {_value(name)!r}")
            weights |= {f"frozen:{folder}": weight / len(folders) for folder in folders}
        else:
            weights[name] = weight
    return weights


def is_no_adapter(name: str) -> bool:
    """Whether a name is that of the base, a frozen adapter, a past self, a scripted partner or an endpoint."""
    return _kind(name) != "adapter"


def is_scripted(entry: Entry) -> bool:
    """Whether an entry is one scripted partner, which plays without a model."""
    return isinstance(entry, str) and _kind(entry) == "scripted"


def endpoints(policies: Mapping[str, Entry]) -> list[tuple[str, str, str]]:
    """Seat, address and model of every endpoint that plays, alone or in a mix."""
    named = [(seat, name) for seat, entry in policies.items() for name in _names(entry) if _kind(name) == "endpoint"]
    parts = [(seat, name.partition("#")) for seat, name in named]
    return [(seat, address, model) for seat, (address, _, model) in parts]


def build_players(
    policies: Mapping[str, Entry],
    env: CoopEnv,
    endpoint: Callable[[str, str], Partner],
    past: Mapping[str, PastSelves] | None = None,
) -> dict[str, Player | Mix]:
    """Who sits in each seat of an environment.

    Args:
        endpoint: makes a partner of a url and the name of a model.
        past: the past selves of each adapter that has some.
    """
    adapters = frozen_names(policies)

    def player(name: str) -> Player | PastSelves:
        match _kind(name):
            case "base":
                return BASE
            case "frozen":
                return adapters[name]
            case "past":
                return (past or {})[_value(name)]
            case "scripted":
                return find_partner(_value(name), env)
            case "endpoint":
                return endpoint(*name.split("#"))
        return name

    def seated(entry: Entry) -> Player | Mix:
        if isinstance(entry, Mapping):
            return Mix(tuple(map(player, entry)), tuple(entry.values()))
        found = player(entry)
        return Mix((found,), (1.0,)) if isinstance(found, PastSelves) else found

    return {seat: seated(entry) for seat, entry in policies.items()}


def check(entry: Entry, make_envs: Sequence[Callable[[], CoopEnv]], trained: Sequence[str] = ()) -> None:
    """Raises ValueError where an entry of a configuration names nobody, or a scripted partner that cannot play one of
    the environments, and says who or what it could be. An environment is made only for a partner to look at.

    Args:
        entry: what a seat is given to.
        make_envs: the environments that are played.
        trained: the adapters that are trained there, whose past selves can play.
    """
    if isinstance(entry, Mapping):
        Mix(tuple(entry), tuple(entry.values()))
    for name in _names(entry):
        if "://" in name:  # of any kind, because the other messages quote it
            check_address(name.partition(":")[2] if _kind(name) == "frozen" else name)
        match _kind(name):
            case "scripted":
                find_partner(_value(name), *(make() for make in make_envs))
            case "frozen" if not (Path(expanduser(_value(name))) / "adapter_config.json").is_file():
                raise ValueError(f"{name!r}: {_value(name)!r} is not the folder of a PEFT adapter")
            case "endpoint":
                _check_endpoint(name)
            case "past" if _value(name) not in trained:
                known = ", ".join(f"past:{adapter}" for adapter in trained) or "none"
                raise ValueError(f"{name!r} is no past self of an adapter that is trained here; there is {known}")
            case "adapter" if not re.fullmatch(r"[A-Za-z0-9_-]+", name):  # it becomes a folder
                raise ValueError(
                    f"{name!r} is refused: an adapter's name has letters, digits, _ and - only; "
                    "else it is base, frozen:FOLDER, scripted:NAME or a URL#MODEL"
                )
            case "adapter" if re.fullmatch(_FOLDERS_OF_A_RUN, name, re.IGNORECASE):
                raise ValueError(f"{name!r} is no name for an adapter: something else has it in a run's folder")
            case "adapter" if name in PARTNERS or name.casefold() == "base":  # else a slip would train an adapter
                meant = "base" if name.casefold() == "base" else f"scripted:{name}"
                raise ValueError(f"{name!r} is no name for an adapter. Did you mean {meant!r}?")


def _check_endpoint(name: str) -> None:
    if not re.fullmatch(r"[^#]+#[^#]+", name):
        raise ValueError(f"{name!r} must end with # and the name of a model")
    if find_spec("openai") is None:
        raise ValueError(f"{name!r} needs the openai client: pip install --editable '.[endpoint]'")


def _names(entry: Entry) -> tuple[str, ...]:
    return (entry,) if isinstance(entry, str) else tuple(entry)


def _kind(name: str) -> str:
    if name == "base":
        return "base"
    head = name.partition(":")[0]
    kinds = {"frozen": "frozen", "past": "past", "scripted": "scripted", "http": "endpoint", "https": "endpoint"}
    return kinds.get(head, "adapter")


def _value(name: str) -> str:
    return name.partition(":")[2]


def frozen_names(policies: Mapping[str, Entry]) -> dict[str, str]:
    """The name that the team has for the adapter of each entry `frozen:FOLDER`, none called like another: the entry
    with _ for what no name can have, and with a number where that is taken."""
    taken, found = set(learners(policies)), {}
    for name in sorted({name for entry in policies.values() for name in _names(entry) if _kind(name) == "frozen"}):
        plain = re.sub(r"\W+", "_", name)
        numbered = (f"{plain}_{number}" for number in count(2))
        found[name] = next(adapter for adapter in chain([plain], numbered) if adapter not in taken)
        taken.add(found[name])
    return found
