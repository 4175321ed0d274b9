"""Which scripted partners play an environment. A game never knows who plays it, so the list is here."""

from collections.abc import Mapping
from typing import TypeVar

from envs.cooperbench.env import CooperBench
from envs.core.env import CoopEnv
from envs.core.lookup import find
from envs.handover.env import Handover
from envs.scripted.base import Partner
from envs.scripted.cooperbench import PATCHERS
from envs.scripted.exploits import EXPLOITS
from envs.scripted.handover import NOTE_EXPLOITS, NOTE_TAKERS
from envs.scripted.honest import IDEAL, Auditable
from envs.scripted.partners import PARTNERS
from envs.scripted.patch_exploits import PATCH_EXPLOITS

_Player = TypeVar("_Player")

OWN: Mapping[type[CoopEnv], Mapping[str, type[Partner]]] = {Handover: NOTE_TAKERS, CooperBench: PATCHERS}
OWN_EXPLOITS: Mapping[type[CoopEnv], Mapping[str, Auditable]] = {Handover: NOTE_EXPLOITS, CooperBench: PATCH_EXPLOITS}


def exploits_of(env: CoopEnv) -> Mapping[str, Auditable]:
    """Honest play of an environment, called `IDEAL`, and the policies that no reward may prefer to it, by name; none of
    an environment in which nobody can say what honest play is."""
    exploits = _of_game(env, OWN_EXPLOITS, EXPLOITS)
    return exploits if plays(type(exploits[IDEAL]), env) else {}


def partners_of(env: CoopEnv) -> Mapping[str, type[Partner]]:
    """The scripted partners that can play an environment, by name: its own, or those that can judge its options."""
    return {name: partner for name, partner in _of_game(env, OWN, PARTNERS).items() if plays(partner, env)}


def _of_game(
    env: CoopEnv, own: Mapping[type[CoopEnv], Mapping[str, _Player]], others: Mapping[str, _Player]
) -> Mapping[str, _Player]:
    """The players by name that an environment has of its own, or those of all others."""
    return next((players for game, players in own.items() if isinstance(env, game)), others)


def plays(partner: type[Partner], env: CoopEnv) -> bool:
    """Whether a partner can play an environment, by what its class says."""
    return getattr(partner, "plays", lambda env: True)(env)


def find_partner(name: str, env: CoopEnv, *others: CoopEnv) -> Partner:
    """The partner that plays an environment under one of its names, or by dotted path, `my_lab.partners:Grumpy`.

    >>> from envs.handover.env import Handover
    >>> type(find_partner("ideal", Handover())).__name__
    'NoteTaker'

    Args:
        others: further environments that this partner will play.

    Raises:
        ValueError: there is no such partner, it cannot play one of the environments, or it needs arguments.
    """
    known = partners_of(env)
    kind = known[name] if name in known else find(name, PARTNERS | dict(known), kind="scripted partner")
    for played in (env, *others):
        if not plays(kind, played):
            able = ", ".join(partners_of(played))
            can = f"{able} can" if able else "none of envs.scripted can; write one for it"
            raise ValueError(f"'scripted:{name}' cannot play {type(played).__name__}; {can}.")
    try:
        return kind()
    except TypeError as error:
        raise ValueError(f"'scripted:{name}' cannot be made: {error}. Name a class that needs no arguments.") from error
