"""What is refused before torch is loaded, though each value may be what it is."""

import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AttentionInterface
from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION

from marl_coop import Experiment, cli
from marl_coop.config.checks import ATTENTIONS, check_config
from marl_coop.config.errors import ConfigError
from marl_coop.config.schema import load_config
from marl_coop.hyperparameters import SCHEDULE_KEYWORDS

ROOT = Path(__file__).parents[1]
LINEAR = "training.lr_scheduler_type=linear"
SERVED = "training.engine=vllm_server"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("training.num_mini_batches=7", "training.episodes_per_update: 32 cannot be shared by 1 processes and 7 minib"),
        ("training.episodes_per_update=31", "training.episodes_per_update: 31 cannot be shared by 1 processes and 2"),
        (
            "training.gradient_accumulation_steps=7",
            "training.episodes_per_update: 32 cannot be shared by 1 processes and 2",
        ),
        ("training.engine=vlm", "training.engine: There is no engine 'vlm'. Did you mean 'vllm'?"),
        ("training.engine=nowhere:make", "training.engine: The engine 'nowhere:make' cannot be imported: "),
        ("training.engine_options={urls: []}", "training.engine_options: the embedded engine has none, got ['urls']"),
        (SERVED, "training.engine_options: urls must be a list of addresses"),
        (
            f"{SERVED} training.engine_options={{url: []}}",
            "training.engine_options: unknown key 'url'; did you mean 'urls",
        ),
        ("training.async_play=true", "training.async_play: it must be false: 'embedded' sleeps while they learn"),
        (
            "training.lr_scheduler_kwargs={num_cycles: 2}",
            "training.lr_scheduler_kwargs.num_cycles: unknown key; the schedule 'constant' takes none",
        ),
        (
            "training.lr_scheduler_type=polynomial training.lr_scheduler_kwargs={end: 0}",
            "training.lr_scheduler_kwargs.end: unknown key; the schedule 'polynomial' takes lr_end, power",
        ),
        ("training.optim_args=beta", "training.optim_args: 'beta' is refused: give name=value,name=value"),
        ("model.chat_template_kwargs={messages: []}", "model.chat_template_kwargs.messages: the library gives this"),
        ("model.name_or_path=/not/there", "model.name_or_path: there is no folder '/not/there'"),
        ("model.name_or_path=~nobody-at-all/x", "model.name_or_path: there is no folder '~nobody-at-all/x'"),
        (
            "model.name_or_path=a//b",
            "model.name_or_path: there is no folder 'a//b': give a folder, a Hub id, or 'llm-smo",
        ),
        ("model.name_or_path=..", "model.name_or_path: '..' is the folder of no model: it has no config.json"),
        (
            "model.attn_implementation=flashattention",
            "model.attn_implementation: 'flashattention' is refused: there is",
        ),
        (
            "model.attn_implementation=org/kernel",
            "model.attn_implementation: 'org/kernel' is refused: there is no such",
        ),
        ("model.end_of_turn=''", "model.end_of_turn: '' is refused: give a token, or null"),
        ("evaluation.every=31", "evaluation.every: 31 is beyond the run's 30 updates: give as many at most, or 0"),
        ("evaluation.every=2 training.max_steps=2", "evaluation.every: 2 is beyond the run's 1 updates"),
        ("training.warmup_steps=1", "training.warmup_steps: 1 has no effect on a constant rate; set lr_scheduler_type"),
        (f"{LINEAR} training.warmup_steps=1.5", "training.warmup_steps: 1.5 is refused: give a whole number of steps"),
        (f"{LINEAR} training.warmup_steps=61", "training.warmup_steps: 61 is beyond the run's 60 steps: give fewer"),
        ("training.alternate_updates=30", "training.alternate_updates: 30 is too many: agent_1 would not learn in a"),
        ("rewards={'*': {weight: 0}}", "rewards: every weight is 0, and nothing would be learned: give one, as task_"),
        ("lora.start_from=/not/there", "lora.start_from: '/not/there/agent_0' is not the folder of a PEFT adapter"),
    ],
)
def test_what_cannot_run_is_one_line_that_names_the_key(overrides, message):
    config = load_config([], re.split(r" (?=[a-z]+[.])", overrides))
    with pytest.raises(ConfigError) as caught:
        check_config(config)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "overrides",
    [
        "training.num_mini_batches=8 training.gradient_accumulation_steps=4",
        f"{SERVED} training.engine_options={{urls: ['http://localhost:8000/v1']}} training.async_play=true",
        "training.lr_scheduler_type=polynomial training.lr_scheduler_kwargs={lr_end: 0.0}",
        "training.optim_args=fused=true,eps=1e-6",
        f"{LINEAR} training.warmup_steps=60 evaluation.every=30 training.alternate_updates=15",
        "rewards={'*': {weight: 0}, foresight: {weight: {schedule: after, updates: 1, weight: 1}}}",
        "training.engine=marl_coop.training_rules:check_shares",
    ],
)
def test_what_fits_passes(overrides):
    check_config(load_config([], re.split(r" (?=[a-z]+[.])", overrides)))


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("file/run", "'{place}' cannot be made: '{folder}/file' is no folder; name another folder"),
        ("full", "'{place}' is not empty; go on with its run by --resume, or name another output_dir"),
        ("n" * 300, "'{place}' cannot be made: '{folder}' cannot be written (File name too long); name"),
        (
            "/proc/run",
            "'/proc/run' cannot be made: '/proc' cannot be written (No such file or",
        ),
    ],
)
@pytest.mark.parametrize("flag", ["--print-config", "--dry-run"])
def test_a_folder_that_a_run_cannot_have_is_told_before_torch_is_loaded(tmp_path, capsys, place, message, flag):
    (tmp_path / "full").mkdir()
    for file in ("file", "full/file"):
        (tmp_path / file).write_text("")
    words = ["train", "--config", str(ROOT / "configs/quickstart.yaml"), flag, f"output_dir={tmp_path / place}"]
    assert cli.main(words) == 2
    said = message.format(place=tmp_path / place, folder=tmp_path)
    assert capsys.readouterr().err.startswith(f"error: command line: output_dir: {said}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "full"]


def test_print_config_judges_the_whole_configuration_without_torch():
    words = ["train", "--config", "configs/quickstart.yaml", "--print-config"]
    code = f"import sys; from marl_coop.cli import main; words = {words}\n"
    code += "said = [main([*words, override]) for override in ('training.num_mini_batches=7', 'seed=1')]\n"
    code += "print(said, 'torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[2, 0] False", result.stderr


def test_the_keywords_of_each_schedule_are_those_of_transformers():
    given = {"optimizer", "num_warmup_steps", "num_training_steps", "last_epoch"}
    functions = {str(kind.value): function for kind, function in TYPE_TO_SCHEDULER_FUNCTION.items()}
    for kind, keywords in SCHEDULE_KEYWORDS.items():
        assert {*keywords} == inspect.signature(functions[kind]).parameters.keys() - given


@pytest.mark.parametrize(
    "override", ["training.async_play=true", "output_dir=/proc/run", "evaluation.every=31", "evaluation.best=utility"]
)
def test_from_python_a_run_is_refused_in_the_same_words_before_anything_is_loaded(override, capsys):
    nowhere = ["model.name_or_path=nobody/nothing", override]
    assert cli.main(["train", "--print-config", "--config", str(ROOT / "configs/base.yaml"), *nowhere]) == 2
    with pytest.raises(ConfigError) as caught:
        Experiment(load_config([ROOT / "configs/base.yaml"], nowhere))
    assert capsys.readouterr().err == f"error: {caught.value}\n"


@pytest.mark.parametrize("kind", ["scripted", "frozen", "past"])
def test_a_kind_of_player_without_a_name_is_refused_as_it_was_written(kind):
    with pytest.raises(ConfigError, match=f"policies.agent_1: '{kind}:' names nobody: give {kind}:NAME"):
        load_config([], [f"policies.agent_1={kind}:"])


@pytest.mark.parametrize("name", ["..", ".hidden", "a/b", "", "a b", "a\n"])
def test_a_name_that_would_lead_elsewhere_is_refused(name):
    with pytest.raises(ConfigError, match="name: .* is refused: a name has letters, digits, _, - and [.] only"):
        load_config([], [f"name={json.dumps(name)}"])


def test_the_attentions_are_those_of_transformers_and_ours():
    theirs = {name for name in AttentionInterface() if "|" not in name}
    assert {*ATTENTIONS} == theirs | {"eager", "grouped"}


MEDDLING = """
from rewards import RewardTerm

class Meddler(RewardTerm):
    weight: float = 1.0

    def __call__(self, episode, agent):
        episode.task.briefs[agent] = "another"
        return [0.0 for turn in episode.turns_of(agent)]
"""


def test_a_term_that_changes_what_it_scores_is_refused(tmp_path, monkeypatch):
    (tmp_path / "meddling_terms.py").write_text(MEDDLING)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match="meddling_terms:Meddler: changes the episode that it is to score"):
        check_config(load_config([], ["rewards[meddling_terms:Meddler].weight=1.0"]))


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (["env.name=PairedFeatures", "env.rounds=99999999999999999999999"], "env.rounds"),
        (["env.budget=99999999999999999999999"], "env.budget"),
        (["env.test_timeout_s=1e30"], "env.test_timeout_s"),
        (["env.cells.both_right=1e30"], "env.cells.both_right"),
        (["rewards.deference.weight=1e30"], "rewards.deference.weight"),
        (["rewards.deference.alpha=1e30"], "rewards.deference.alpha"),
        (["lora.r=99999999999999999999999"], "lora.r"),
        (["evaluation.episodes=99999999999999999999999"], "evaluation.episodes"),
        (["training.learning_rate=1e30"], "training.learning_rate"),
        (["training.max_steps=99999999999999999999999"], "training.max_steps"),
        (["training.temperature=1e-320"], "training.temperature"),
    ],
)
def test_a_number_that_nothing_can_compute_with_is_refused(overrides, key):
    with pytest.raises(
        ConfigError, match=rf"^command line: {re.escape(key)}: .* (should be (less|greater)|give 1 to) "
    ):
        load_config([], overrides)
