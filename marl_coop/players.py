"""Who sits in a seat: an adapter, the frozen base, a partner that writes text, or one of several for each episode."""

from dataclasses import dataclass

import numpy as np

from envs.scripted.base import Partner

BASE = None  # the player that is the frozen base alone


Player = str | None | Partner  # name of an adapter, the base, or who writes the seat's replies


@dataclass(frozen=True, slots=True)
class Mix:
    """One of several players for each episode.

    Raises:
        ValueError: no player, not a weight for each, or a weight that is not a positive number.
    """

    players: tuple[Player, ...]
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
        share = np.cumsum(self.weights) / sum(self.weights)
        return self.players[int(np.searchsorted(share, np.random.default_rng(seed).random(), side="right"))]


def player_name(player: Player) -> str:
    """What a player is called in records: the adapter, `base`, or the partner's own name."""
    if isinstance(player, str):
        return player
    return "base" if player is BASE else str(getattr(player, "name", type(player).__name__))
