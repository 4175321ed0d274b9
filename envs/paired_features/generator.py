"""From a package, a contract and a seed to a task: who builds which feature, what each is told, what is tested."""

from collections.abc import Sequence

import numpy as np

from envs.core.task import Decision, HiddenTest, Seat, Task
from envs.core.tokens import message_tokens
from envs.families.base import FunctionFamily, claim, pointer
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
) -> Task:
    """The task of a seed: `right` says which seats' sources are right on the decision about the contract."""
    part_of = dict(zip(seats, (int(part) for part in rng.permutation(2)), strict=True))
    one, two, three = (int(n) for n in 1 + rng.permutation(9)[:3])
    draft = draft_of(place, contract, seed)
    names = {contract.function(part): draft.features[part].binding for part in range(2)}
    briefs, probes, tests = {}, {}, []
    for seat, part in part_of.items():
        options = f"Options: {', '.join(decision.options)}. {claim(decision, seat, rng, contract.sources)}."
        briefs[seat] = f"{_brief(draft, contract, part)}\n{options}{pointer(decision, seat)}"
        checks = [bound(contract.check(part, decision.best, n), names) for n in (one, two)]
        tests += [HiddenTest(part=seat, expression=test) for test in (*checks, *draft.features[part].tests)]
        probes[seat] = {
            decision.id: {
                option: tuple(bound(contract.check(part, option, n), names) for n in (one, two, three))
                for option in decision.options
            }
        }
    works = [feature.work(contract.source(i, decision.best), True) for i, feature in enumerate(draft.features)]
    return Task(
        id=f"{place.name}+{contract.name}-{seed}",
        family=f"{place.name}+{contract.name}",
        seed=seed,
        seats=seats,
        briefs=briefs,
        decisions=(decision,),
        cell=dict(zip(seats, right, strict=True)),
        stubs={seat: contract.function(part) for seat, part in part_of.items()},
        probes=probes,
        hidden_tests=(*tests, HiddenTest(part="", expression=bound(contract.round_trip(three), names))),
        reference_tokens=sum(message_tokens(edit.text) for work in works for edit in edits(work)),
        files=draft.files,
    )


def reference_work(
    place: RepoFamily, contract: FunctionFamily, task: Task, seat: Seat, option: str, *, coordinated: bool
) -> str:
    """The actions that build a seat's feature of a task under an option of its contract."""
    part = [contract.function(0), contract.function(1)].index(task.stubs[seat])
    return draft_of(place, contract, task.seed).features[part].work(contract.source(part, option), coordinated)


def draft_of(place: RepoFamily, contract: FunctionFamily, seed: int) -> Draft:
    """The package of a seed."""
    functions = contract.function(0), contract.function(1)
    return place.draw(functions, contract.signatures, np.random.default_rng((seed, 1)))


def _brief(draft: Draft, contract: FunctionFamily, part: int) -> str:
    """What the builder of a feature is told, up to the options."""
    mine, theirs = contract.signatures[part], contract.signatures[1 - part]
    return (
        "You and your partner change one package on two branches, which are merged and tested. "
        f"Files: {', '.join(sorted(draft.files))}.\n"
        f"Your feature: {draft.features[part].brief}.\n"
        f"{mine}: {contract.glosses[part]}. Your partner writes {theirs}. Both must use one {contract.contract}."
    )
