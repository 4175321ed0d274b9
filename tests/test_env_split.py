"""Training families and held-out families: which are which, and that nothing trains on the second."""

from collections import Counter
from pathlib import Path

import pytest

import envs
from envs.families import HELD_OUT, TRAINING
from marl_coop.config.schema import load_config

ROOT = Path(__file__).parent.parent
CONFIGS = sorted(path for path in (ROOT / "configs").rglob("*.yaml") if path.parent.name != "accelerate")
HELD_OUT_NAMES = {family.name for family in HELD_OUT}


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


def test_an_environment_that_holds_out_nothing_says_so():
    with pytest.raises(ValueError, match="families is .held_out.*Held out here: none"):
        envs.DesignReview(families="held_out")


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_configuration_trains_on_a_held_out_family(file):
    config = load_config([file])
    assert not {family.name for family in config.make_env().families} & HELD_OUT_NAMES


def test_the_table_in_the_docs_has_every_family_its_kind_its_split_and_real_options():
    rows = [
        [cell.strip(" `") for cell in line.strip("| \n").split(" | ")]
        for line in (ROOT / "docs" / "families.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("| `") and not line.startswith("| `env.")
    ]
    table = {row[0]: row for row in rows}
    for family in (*TRAINING, *HELD_OUT):
        _, contract, kind, split, functions, options = table[family.name]
        assert (contract, kind) == (family.contract, family.kind)
        assert split == ("held out" if family in HELD_OUT else "train")
        assert functions == "`, `".join(family.signatures)
        decision = envs.PairedFunctions(families=[family.name]).make_task(0).decisions[0]
        assert options == "`, `".join(decision.options)
    assert len(rows) == len(table) == len(TRAINING) + len(HELD_OUT)
