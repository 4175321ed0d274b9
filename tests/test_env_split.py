"""Training families and held-out families: which are which, and that nothing trains on the second."""

import re
from collections import Counter
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest

import envs
from envs import moon_survival
from envs.core.env import SEATS
from envs.core.tokens import message_tokens
from envs.families import HELD_OUT, HELD_OUT_CONTRACTS, HELD_OUT_COPIED, TRAINING
from envs.families.sources import (
    FEW_SOURCES,
    HELD_OUT_SOURCES,
    MATCHED_SOURCES,
    SOURCES,
    TRAINED_ON,
    WIDE_SOURCES,
    Sources,
)
from envs.paired_features.env import PairedFeaturesConfig
from marl_coop.config.checks import held_out_in_training
from marl_coop.config.layers import read_file
from marl_coop.config.schema import load_config

ROOT = Path(__file__).parent.parent
OTHER = ("accelerate", "batteries", "prices", "studies", "sweeps")  # files of another kind
PLAYED = [path for path in (ROOT / "configs").rglob("*.yaml") if path.parent.name not in OTHER]
CONFIGS = sorted(path for path in PLAYED if "conditions" not in read_file(path))  # which batteries have
HELD_OUT_NAMES = {family.name for family in HELD_OUT}
NEVER_TRAINED = (*HELD_OUT, *HELD_OUT_COPIED)


def test_sixteen_families_train_and_four_are_held_out_one_of_each_kind():
    assert [family.name for family in HELD_OUT] == ["signing", "page_size", "return_type", "row_size"]
    assert len(TRAINING) == 16 and not {family.name for family in TRAINING} & HELD_OUT_NAMES
    kinds = {"categorical", "numeric", "structural", "estimate"}
    assert Counter(family.kind for family in HELD_OUT) == dict.fromkeys(kinds, 1)
    assert {family.kind for family in TRAINING} == kinds


def names(**kwargs) -> set[str]:
    return {family.name for family in envs.make("PairedFunctions", **kwargs).families}


def test_families_can_be_named_by_split():
    assert names() == names(families="train") == {family.name for family in TRAINING}
    assert names(families="held_out") == HELD_OUT_NAMES
    assert names(families="all") == names() | HELD_OUT_NAMES
    assert names(families=["row_size"]) == {"row_size"}
    assert names(families="held_out_copied") == names(families=["buckets"]) == {"buckets"}


def test_a_held_out_contract_whose_code_is_copied_ends_where_its_gap_does():
    (family,) = HELD_OUT_COPIED
    assert [family.source(part, "___") for part in (0, 1)] == [
        "def bucket(k): return k % ___",
        "def rounds(k): return k // ___",
    ]


def words(sources: Sources) -> set[str]:
    phrases = (*sources.strong, *sources.weak, *sources.measured)
    return {word for phrase in phrases for word in re.findall(r"[a-z]+", phrase.lower())}


def test_no_source_of_training_lends_a_word_to_those_that_are_held_out():
    assert not words(FEW_SOURCES) & words(HELD_OUT_SOURCES)
    for pair in product((FEW_SOURCES, HELD_OUT_SOURCES), repeat=2):
        assert not set(pair[0].strong) & set(pair[1].weak)
    starts = [
        {phrase.partition(" ")[0] for phrase in side} for side in (HELD_OUT_SOURCES.strong, HELD_OUT_SOURCES.weak)
    ]
    assert not (starts[0] | starts[1]) & {"the", "a", "an"} and "our" in starts[0] & starts[1]


def article(phrase: str) -> str:
    first = phrase.partition(" ")[0]
    return {"an": "a", "a": "a", "the": "the"}.get(first, "none")


def test_wide_sources_are_the_few_and_more_of_which_neither_article_nor_length_tells_which_are_reliable():
    assert not words(WIDE_SOURCES) & words(HELD_OUT_SOURCES)
    sides = WIDE_SOURCES.strong, WIDE_SOURCES.weak
    assert not set(sides[0]) & set(sides[1]) and [len(set(side)) for side in sides] == [64, 64]
    assert all(side[:8] == few for side, few in zip(sides, (FEW_SOURCES.strong, FEW_SOURCES.weak), strict=True))
    starts, lengths = ([[of(phrase) for phrase in side] for side in sides] for of in (article, message_tokens))
    assert Counter(starts[0]) == Counter(starts[1]) == {"the": 24, "a": 24, "none": 16}
    longer = np.sign(np.subtract.outer(*lengths))  # 0 on the mean: no length is more likely on either side
    assert abs(longer.mean()) < 0.1


LOOKS = {
    "length": len,
    "words": lambda name: len(name.split()),
    "tokens": message_tokens,
    "s": lambda name: name.endswith("s"),
    "ed": lambda name: sum(word.endswith("ed") for word in name.split()),
    "ing": lambda name: sum(word.endswith("ing") for word in name.split()),
    "apostrophe": lambda name: "'" in name,
    "hyphen": lambda name: "-" in name,
    "capitals": lambda name: name != name.lower(),
    "article": lambda name: article(name) != "none",
}


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_matched_sources_look_alike(look):
    sides = MATCHED_SOURCES.strong, MATCHED_SOURCES.weak
    assert [len(set(side)) for side in sides] == [32, 32]
    assert [sum(map(look, side)) for side in sides] == [sum(map(look, sides[0]))] * 2


def test_matched_sources_share_no_word_with_any_others():
    names = words(replace(MATCHED_SOURCES, measured=())) - {"s"}  # of "surveyor's map"
    assert not names & (words(WIDE_SOURCES) | words(HELD_OUT_SOURCES))


def test_no_article_tells_a_reliable_source_of_the_moon():
    sides = [Counter(map(article, moon_survival.SOURCES[side])) for side in ("strong", "weak")]
    assert sides[0] == sides[1]


@pytest.mark.parametrize("environment", ["PairedFunctions", "PairedFeatures", "DesignReview"])
@pytest.mark.parametrize("pool", SOURCES)
def test_briefs_call_sources_by_the_names_that_are_chosen_and_are_else_the_same(environment, pool):
    chosen, other = (envs.make(environment, sources=name) for name in (pool, "few"))
    for seed in range(40):
        task, same = chosen.make_task(seed), other.make_task(seed)
        if not (decision := task.decisions[0]).is_estimate:
            names = {"strong": SOURCES[pool].strong, "weak": SOURCES[pool].weak}
            for seat, name in decision.source.items():
                assert name in names[decision.cue[seat]] and f"Your source, {name}, says" in task.briefs[seat]
        assert replace(decision, source={}) == replace(same.decisions[0], source={})


@pytest.mark.parametrize("pool", SOURCES)
def test_held_out_families_have_sources_that_nobody_was_trained_on_whatever_is_chosen(pool):
    expected = HELD_OUT_SOURCES if pool in TRAINED_ON else SOURCES[pool]
    env = envs.PairedFunctions(families=["page_size"], sources=pool)
    known = {*expected.strong, *expected.weak}
    assert all(set(env.make_task(seed).decisions[0].source.values()) <= known for seed in range(20))


def learned(env: envs.PairedFunctions) -> dict[str, float]:
    """Word of a brief -> the log odds that its seat's claim is right, of 2,000 instances with one right seat."""
    counts = {True: Counter(), False: Counter()}
    for task in map(env.make_task, range(2000)):
        for seat in SEATS:
            counts[task.cell[seat]].update(re.findall(r"[a-z]+", task.briefs[seat].lower()))
    return {word: np.log((1 + counts[True][word]) / (1 + counts[False][word])) for word in counts[True] | counts[False]}


def hits(env: envs.PairedFunctions, odds: dict[str, float]) -> float:
    """How often the seat whose brief has the better odds is the right one; a tie is half a hit."""
    found = []
    for task in map(env.make_task, range(10_000, 11_000)):
        first, second = (sum(odds.get(w, 0) for w in re.findall(r"[a-z]+", task.briefs[s].lower())) for s in SEATS)
        found.append((np.sign(first - second) == (1 if task.cell[SEATS[0]] else -1)) + (first == second) / 2)
    return float(np.mean(found))


@pytest.mark.parametrize("family", [family.name for family in NEVER_TRAINED if family.kind != "estimate"])
def test_words_learned_in_training_pick_the_right_seat_of_a_training_contract_and_of_no_held_out_one(family):
    one_right = {"cells": {"both_right": 0, "one_right": 1, "both_wrong": 0}}
    trained = [f.name for f in TRAINING if f.kind != "estimate"]
    odds = learned(envs.PairedFunctions(families=trained, **one_right))
    assert hits(envs.PairedFunctions(families=["offset"], **one_right), odds) > 0.9
    assert abs(hits(envs.PairedFunctions(families=[family], **one_right), odds) - 0.5) < 0.06
    older = envs.PairedFunctions(families="held_out_contracts", **one_right)
    assert hits(older, odds) > 0.8, "what was held out before were the contracts alone"


@pytest.mark.parametrize("family", [family.name for family in NEVER_TRAINED if family.kind in ("numeric", "estimate")])
def test_a_held_out_family_repeats_the_numbers_of_no_training_family(family):
    def gaps(name: str, seed: int) -> list[float]:
        numbers = sorted(float(o) for o in envs.PairedFunctions(families=[name]).make_task(seed).decisions[0].options)
        return list(np.diff(numbers))

    numeric = [f.name for f in TRAINING if f.kind in ("numeric", "estimate")]
    for other in numeric:
        assert np.mean([gaps(family, seed) == gaps(other, seed) for seed in range(60)]) < 0.2, (
            other
        )  # by chance: gaps are even numbers up to 14
    assert gaps("capacity", 3) == gaps("drift", 3), "training families may repeat each other"


def test_the_older_split_keeps_the_instances_of_its_figures():
    """Of `row_size`, which then had the numbers of `capacity` of the same seed, and the sources of training."""
    older = envs.PairedFunctions(families="held_out_contracts", sources="few")
    assert older.families == HELD_OUT_CONTRACTS
    tasks = {task.family: task for task in map(older.make_task, range(40))}
    assert tasks.keys() == HELD_OUT_NAMES
    for task in tasks.values():
        sources = [re.search("Your source, ([^,]+)", brief)[1] for brief in task.briefs.values()]
        known = FEW_SOURCES
        assert set(sources) <= {*known.strong, *known.weak, *known.measured}


def test_an_environment_that_holds_out_nothing_says_so():
    with pytest.raises(ValueError, match="families is .held_out.*Held out here: none"):
        envs.DesignReview(families="held_out")


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_configuration_trains_on_a_held_out_family(file):
    assert held_out_in_training(load_config([file])) is None


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        (["env.families=[offset,page_size]"], "families: page_size"),
        (["env.families=held_out_copied"], "families: buckets"),
        (["env.families=held_out_contracts"], "families: signing, families: page_size, families: return_type, fam"),
        (["env.sources=matched"], "sources: matched"),
        (["env.name=PairedFeatures", "env.contracts=[buckets]"], "contracts: buckets"),
        (["env.name=DesignReview", "env.sources=held_out"], "sources: held_out"),
        (["env.curriculum.levels=[{},{sources: matched},{families: all}]"], "sources: matched, families: signing"),
        (["env.families=held_out", "env.curriculum.levels=[{families: train}]"], None),  # it plays the levels alone
        (["evaluation.env={families: held_out, sources: matched}"], None),
        (["env.name=Handover"], None),
    ],
)
def test_a_configuration_that_trains_on_what_is_for_evaluation_alone_says_what_that_is(changes, kept):
    said = held_out_in_training(load_config([ROOT / "configs/quickstart.yaml"], changes))
    assert (said is None) if kept is None else f"for evaluation alone ({kept}" in said


def test_contracts_of_a_subclass_are_its_own():
    class OwnConfig(PairedFeaturesConfig, frozen=True):
        CONTRACTS = (*TRAINING[:1], *HELD_OUT[:1])

    assert OwnConfig(contracts="all").kept_for_evaluation == ("contracts: signing",)


def test_the_table_in_the_docs_has_every_family_its_kind_its_split_and_real_options():
    rows = [
        [cell.strip(" `") for cell in line.strip("| \n").split(" | ")]
        for line in (ROOT / "docs" / "families.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("| `") and not line.startswith("| `env.")
    ]
    table = {row[0]: row for row in rows}
    for family in (*TRAINING, *NEVER_TRAINED):
        _, contract, kind, split, functions, options = table[family.name]
        assert (contract, kind) == (family.contract, family.kind)
        assert split == ("held out" if family in HELD_OUT else "copied" if family in HELD_OUT_COPIED else "train")
        assert functions == "`, `".join(family.signatures)
        decision = envs.PairedFunctions(families=[family.name]).make_task(0).decisions[0]
        assert options == "`, `".join(decision.options)
    assert len(rows) == len(table) == len(TRAINING) + len(NEVER_TRAINED)
