"""Who sits in a seat: an adapter, the frozen base, a partner that writes text, or one of several for each episode.

In YAML, under `policies`, a seat is given to

    agent_0                        an adapter of that name, which is trained; two seats may share one
    base                           the base model, frozen
    frozen:runs/first/agent_1      a PEFT adapter on disk, frozen
    scripted:persuader             a partner of `envs.partners.PARTNERS`, or scripted:package.module:Class
    https://host/v1#model          a model behind an OpenAI-compatible endpoint
    {agent_1: 0.5, scripted:silent: 0.3, base: 0.2}     one of these, drawn by weight for each episode
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np

from envs.partners import Partner

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
    def of(cls, player: "Player | Mix") -> Self:
        """A mix as it is, a player as the mix of it alone."""
        return player if isinstance(player, Mix) else cls((player,), (1.0,))

    def draw(self, seed: int) -> Player:
        """The player of the episode of this seed (>= 0)."""
        share = np.cumsum(self.weights) / sum(self.weights)
        return self.players[int(np.searchsorted(share, np.random.default_rng(seed).random(), side="right"))]


def adapters_of(policies: Mapping[str, Player | Mix]) -> tuple[str, ...]:
    """The adapters that sit in the seats, in order of the seats, each once."""
    players = (player for policy in policies.values() for player in Mix.of(policy).players)
    return tuple(dict.fromkeys(player for player in players if isinstance(player, str)))


def label(player: Player) -> str:
    """What a player is called in records: the adapter, `base`, or the partner's own name."""
    if isinstance(player, str):
        return player
    return "base" if player is BASE else str(getattr(player, "name", type(player).__name__))
