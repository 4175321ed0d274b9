"""What is refused before torch is loaded, though each value may be what it is."""

import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION

from marl_coop import cli
from marl_coop.config.checks import check_config
from marl_coop.config.errors import ConfigError
from marl_coop.config.schema import load_config
from marl_coop.hyperparameters import SCHEDULE_KEYWORDS

ROOT = Path(__file__).parents[1]
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
        "training.engine=marl_coop.hyperparameters:check_shares",
    ],
)
def test_what_fits_passes(overrides):
    check_config(load_config([], re.split(r" (?=[a-z]+[.])", overrides)))


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("file/run", "'{place}' cannot be made: '{folder}/file' is no folder; name another folder"),
        ("full", "'{place}' is not empty; go on with its run by --resume, or name another output_dir"),
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
    assert capsys.readouterr().err == f"error: command line: output_dir: {said}\n"


def test_print_config_judges_the_whole_configuration_without_torch():
    code = "import sys; from marl_coop.cli import main\n"
    code += "print(main(['train', '--config', 'configs/quickstart.yaml', '--print-config', sys.argv[1]]), "
    code += "'torch' in sys.modules)"
    for override, answer in (("training.num_mini_batches=7", "2 False"), ("seed=1", "0 False")):
        words = [sys.executable, "-c", code, override]
        result = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
        assert result.stdout.splitlines()[-1] == answer, json.dumps(result.stderr)


def test_the_keywords_of_each_schedule_are_those_of_transformers():
    given = {"optimizer", "num_warmup_steps", "num_training_steps", "last_epoch"}
    functions = {str(kind.value): function for kind, function in TYPE_TO_SCHEDULER_FUNCTION.items()}
    for kind, keywords in SCHEDULE_KEYWORDS.items():
        assert {*keywords} == inspect.signature(functions[kind]).parameters.keys() - given
