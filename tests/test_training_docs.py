"""The table of docs/training.md has the key of everything that a training logs, and no other."""

import re
from pathlib import Path

import tiny
from trained import trained

from envs.scripted.partners import Calibrated
from marl_coop.players import Mix
from rewards.metrics import HEADLINES, NAMES
from rewards.schedules import Linear
from rewards.terms.capitulation import Capitulation

A, B = tiny.SEATS
NOT_HERE = {"step", "curriculum/level", "eval/<metric>", "seconds/eval"}  # of a run's own callbacks
PARTS = {
    "<seat>": A,
    "<adapter>": A,
    "<player>": "Calibrated",
    "<term>": "(length|capitulation)",
    "<metric>": f"({'|'.join(NAMES)})",
}


def keys_of_the_page() -> list[str]:
    page = Path("docs/training.md").read_text(encoding="utf-8").split("## Keys of a record")[1].split("\n## ")[0]
    cells = re.findall(r"^\| (`.*?`) \| .", page, re.MULTILINE)
    return [key for cell in cells for key in re.findall(r"`(.*?)`", cell)]


def test_the_table_has_each_key_that_a_training_logs_and_no_other(tmp_path):
    policies = {A: A, B: Mix(players=(B, Calibrated()), weights=(0.5, 0.5))}
    rewards = [tiny.Length(), Capitulation(weight=Linear(start=0.0, end=0.1, updates=2))]
    options = {
        "kl_coef": 0.1,
        "importance": "truncated",
        "advantage": "counterfactual",
        "num_updates": 2,
        "policies": policies,
    }
    _, records = trained(tmp_path, rewards=rewards, **options)
    _, without_a_critic = trained(tmp_path, advantage="group", num_generations=2)
    logged = {key.replace(B, A) for record in (*records, *without_a_critic) for key in record}
    keys = keys_of_the_page()
    assert len(keys) == len(set(keys))
    found = {}
    for key in keys:
        pattern = key
        for part, pattern_of_it in PARTS.items():
            pattern = pattern.replace(part, pattern_of_it)
        found[key] = {name for name in logged if re.fullmatch(pattern, name)}
    assert logged == {name for names in found.values() for name in names}, "write the key into docs/training.md"
    assert {key for key, names in found.items() if not names} == NOT_HERE
    assert found["team/<metric>"] <= {f"team/{name}" for name in HEADLINES}
    assert not found["detail/<metric>"] & {f"detail/{name}" for name in HEADLINES}
