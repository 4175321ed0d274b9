"""Who sits in a seat: an adapter, the frozen base, a partner that writes text, or one of several for each episode."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from envs.scripted.base import Partner

BASE = None  # the player that is the frozen base alone


@dataclass(frozen=True, slots=True)
class PastSelf:
    """An earlier self of an adapter that is trained: the frozen adapter `copy` has its weights after some updates."""

    adapter: str
    updates: int
    copy: str

    @property
    def name(self) -> str:
        return f"past:{self.adapter}@{self.updates}"


@dataclass(slots=True)
class PastSelves:
    """The latest snapshots of an adapter that is trained; an episode gets any of them, each as likely as another.

    Best responses to the average of what a partner has been are fictitious play (Brown 1951), and drawing from past
    selves keeps a team from fitting its partner of today alone (Bansal et al. 2018, arXiv 1710.03748, section 3.2).

    Args:
        adapter: who is trained.
        copies: names of the frozen adapters that hold snapshots, the latest so many.
        every: a snapshot is due after every so many updates, and before the first.
    """

    adapter: str
    copies: tuple[str, ...]
    every: int
    selves: tuple[PastSelf, ...] = field(default=(), init=False)  # from the oldest on

    def take(self, updates: int) -> PastSelf:
        """Make the adapter as it is after some updates, a multiple of `every`, the newest; the oldest may go."""
        copy = self.copies[updates // self.every % len(self.copies)]
        newest = PastSelf(self.adapter, updates, copy)
        self.selves = (*(self_ for self_ in self.selves if self_.copy != copy), newest)
        return newest

    def draw(self, rng: np.random.Generator) -> PastSelf:
        """One of the snapshots. Raises RuntimeError where none was taken yet."""
        if not self.selves:
            raise RuntimeError(f"there is no snapshot of {self.adapter} yet: call snapshot_past(0) of its policy")
        return self.selves[rng.integers(len(self.selves))]


Sampled = str | None | PastSelf  # an adapter's name, the base, a snapshot: whose replies an engine samples
Player = Sampled | Partner  # or who writes the seat's replies


@dataclass(frozen=True, slots=True)
class Mix:
    """One of several players for each episode; past selves stand for any of them.

    Raises:
        ValueError: no player, not a weight for each, or a weight that is not a positive number.
    """

    players: tuple[Player | PastSelves, ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.players or len(self.players) != len(self.weights):
            raise ValueError(f"a mix of {len(self.players)} players has {len(self.weights)} weights; give one for each")
        if not all(0 < weight < float("inf") for weight in self.weights):
            raise ValueError(f"the weights of a mix are {self.weights}; each must be a positive number")

    @classmethod
    def of(cls, player: "Player | Mix") -> "Mix":
        """A mix as it is, a player as the mix of it alone."""
        return player if isinstance(player, Mix) else cls((player,), (1.0,))

    def draw(self, seed: int) -> Player:
        """The player of the episode of this seed (>= 0)."""
        share, rng = np.cumsum(self.weights) / sum(self.weights), np.random.default_rng(seed)
        player = self.players[int(np.searchsorted(share, rng.random(), side="right"))]
        return player.draw(rng) if isinstance(player, PastSelves) else player


def player_name(player: Player) -> str:
    """What a player is called in records: the adapter, `base`, or the partner's own name."""
    if isinstance(player, str):
        return player
    return "base" if player is BASE else str(getattr(player, "name", type(player).__name__))


def partner_name(name: str) -> str:
    """What a player's name is called in metrics: all snapshots of an adapter alike.

    >>> partner_name("past:agent_1@10"), partner_name("scripted")
    ('past:agent_1', 'scripted')
    """
    return name.rpartition("@")[0] if name.startswith("past:") else name


def past_folders(folder: Path, adapter: str) -> dict[int, Path]:
    """Where a saved policy has snapshots of an adapter, by the updates that made each, from the oldest on. Another
    folder there, as a copy that somebody made, is none of them."""
    places = {place.name.removeprefix("update-"): place for place in (folder / "past" / adapter).glob("update-*")}
    return {int(updates): places[updates] for updates in sorted(filter(str.isdecimal, places), key=int)}
