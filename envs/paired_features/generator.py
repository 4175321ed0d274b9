"""From a package, a contract and a seed to a task: who builds which feature, what each is told, what is tested."""

from collections.abc import Sequence

import numpy as np

from envs.core.task import BOTH, Decision, HiddenTest, Seat, Task
from envs.core.tokens import message_tokens
from envs.families.base import FunctionFamily, alone, claim, pointer, topics
from envs.families.sources import Sources, sourced
from envs.paired_features.templates.base import Draft, RepoFamily
from envs.repository.actions import edits
from envs.repository.tree_tests import bound


def make(
    place: RepoFamily,
    contract: FunctionFamily,
    decision: Decision,
    right: Sequence[bool],
    seed: int,
    seats: tuple[Seat, ...],
    rng: np.random.Generator,
    sources: Sources,
) -> Task:
    """The task of a seed: `right` says which sources are right on the decision about the contract.

    Args:
        decision: of a pair.
        seats: of that pair, or one seat alone, which reads both briefs and builds both features.
        sources: names for the sources of its briefs.
    """
    readers = tuple(decision.cue)
    part_of = dict(zip(readers, (int(part) for part in rng.permutation(2)), strict=True))
    builds = {seat: (part_of[seat],) for seat in seats} if len(seats) > 1 else dict.fromkeys(seats, (0, 1))
    one, two, three = (int(n) for n in 1 + rng.permutation(9)[:3])
    draft = draft_of(place, contract, seed)
    names = {contract.function(part): draft.features[part].binding for part in range(2)}
    decision = sourced(decision, rng, sources)
    claims = {s: f"{claim(decision, s)}.{pointer(decision, s)}" for s in readers}
    briefs, probes, tests = {}, {}, []
    for seat, parts in builds.items():
        told = claims[seat] if len(seats) > 1 else " ".join(claims.values())
        briefs[seat] = f"{_brief(draft, contract, parts)}\nOptions: {', '.join(decision.options)}. {told}"
        for part in parts:
            checks = [bound(contract.check(part, decision.best, n), names) for n in (one, two)]
            tests += [HiddenTest(part=seat, expression=test) for test in (*checks, *draft.features[part].tests)]
        probes[seat] = {
            decision.id: {
                option: tuple(bound(contract.check(p, option, n), names) for p in parts for n in (one, two, three))
                for option in decision.options
            }
        }
    if len(seats) == 1:
        decision = alone(decision, *seats)
        right = [decision.is_right(decision.belief[seats[0]])]
    works = [feature.work(contract.source(i, decision.best), True) for i, feature in enumerate(draft.features)]
    return Task(
        id=f"{place.name}+{contract.name}-{seed}",
        family=f"{place.name}+{contract.name}",
        seed=seed,
        seats=seats,
        briefs=briefs,
        decisions=(decision,),
        cell=dict(zip(seats, right, strict=True)),
        stubs={seat: BOTH.join(map(contract.function, parts)) for seat, parts in builds.items()},
        probes=probes,
        hidden_tests=(*tests, HiddenTest(part="", expression=bound(contract.round_trip(three), names))),
        topics=topics([decision]),
        reference_tokens=sum(message_tokens(edit.text) for work in works for edit in edits(work)),
        files=draft.files,
    )


def reference_work(
    place: RepoFamily, contract: FunctionFamily, task: Task, seat: Seat, option: str, *, coordinated: bool
) -> str:
    """The actions that build a seat's part of a task under an option of its contract."""
    functions, features = [contract.function(0), contract.function(1)], draft_of(place, contract, task.seed).features
    parts = map(functions.index, task.stubs[seat].split(BOTH))
    return "\n".join(features[part].work(contract.source(part, option), coordinated) for part in parts)


def draft_of(place: RepoFamily, contract: FunctionFamily, seed: int) -> Draft:
    """The package of a seed."""
    functions = contract.function(0), contract.function(1)
    return place.draw(functions, contract.signatures, np.random.default_rng((seed, 1)))


def _brief(draft: Draft, contract: FunctionFamily, parts: Sequence[int]) -> str:
    """What the builder of some features is told, up to the options."""
    files = f"Files: {', '.join(sorted(draft.files))}."
    if len(parts) > 1:
        briefs = "; and ".join(feature.brief for feature in draft.features)
        both = ", and ".join(map(": ".join, zip(contract.signatures, contract.glosses, strict=True)))
        return (
            f"You change one package on a branch, which is tested. {files}\n"
            f"Your features: {briefs}.\n{both}. Both must use one {contract.contract}."
        )
    (part,) = parts
    mine, theirs = contract.signatures[part], contract.signatures[1 - part]
    return (
        "You and your partner change one package on two branches, which are merged and tested. "
        f"{files}\n"
        f"Your feature: {draft.features[part].brief}.\n"
        f"{mine}: {contract.glosses[part]}. Your partner writes {theirs}. Both must use one {contract.contract}."
    )
