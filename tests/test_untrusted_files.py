"""Checkpoints, adapters, models and runs from elsewhere: what is loaded of them runs no code."""

import importlib
import json
import os
import pickle
import shutil
import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import pytest
import tiny
import torch

from marl_coop.config.errors import ConfigError
from marl_coop.experiment.recorded import recorded_config
from marl_coop.policy.adapters import check_adapter
from marl_coop.policy.loading import load_base
from marl_coop.rollout.chat import Chat
from marl_coop.runs import checkpoints, rundir

PICKLES = ["adapter_model.bin", "pytorch_model.bin", "training_args.bin", "critics.pt", "optimizer.bin"]


class Code:
    """Makes a folder when a pickle of it is loaded."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def plant(file: Path, mark: Path, form: str) -> None:
    file.parent.mkdir(exist_ok=True)
    if form == "torch":
        torch.save(Code(mark), file)
    else:
        file.write_bytes(pickle.dumps(Code(mark)))


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run with a checkpoint after its first update."""
    folder = tmp_path_factory.mktemp("run")
    tiny.cue_trainer(folder, save_updates=1, episodes_per_update=2).train()
    return folder


@pytest.mark.parametrize("form", ["torch", "pickle"])
def test_what_is_planted_runs_where_it_is_unpickled(tmp_path, form):
    plant(tmp_path / "planted", tmp_path / "mark", form)
    if form == "torch":
        torch.load(tmp_path / "planted", weights_only=False)
    else:
        pickle.loads((tmp_path / "planted").read_bytes())
    assert (tmp_path / "mark").exists()


def sign(checkpoint: Path) -> None:
    """Give a checkpoint the manifest of what is in it now."""
    (checkpoint / checkpoints.MANIFEST).unlink()
    aside = checkpoint.parent / checkpoints.ASIDE
    aside.mkdir()
    checkpoints.publish(checkpoint.rename(aside / checkpoint.name), checkpoint.parent, None)


def test_no_file_of_a_checkpoint_runs_code_when_a_run_goes_on_from_it(run, tmp_path):
    """Not even where its manifest says that it is whole. A pickle in the place of what is read is refused."""
    checkpoint = run / "checkpoint-1"
    read = {str(file.relative_to(checkpoint)) for file in checkpoint.rglob("*.*") if "agent_1" not in file.parts}
    read -= {checkpoints.MANIFEST, "agent_0/README.md"}
    assert {"optimizer.pt", "scheduler.pt", "rng_state.pth", checkpoints.CRITICS, "agent_0/base.json"} < read
    unread = [*PICKLES, *(f"agent_0/{name}" for name in PICKLES)]
    for names in (unread, *([name] for name in sorted(read))):
        folder = shutil.copytree(run, tmp_path / names[0].replace("/", "-"))
        for name in names:
            plant(folder / "checkpoint-1" / name, tmp_path / "mark", "torch")
        sign(folder / "checkpoint-1")
        trainer = tiny.cue_trainer(folder, num_updates=2, episodes_per_update=2)
        with nullcontext() if names is unread else pytest.raises((ValueError, RuntimeError, pickle.UnpicklingError)):
            trainer.train(resume_from_checkpoint=str(folder / "checkpoint-1"))
        assert not (tmp_path / "mark").exists(), names


@pytest.mark.parametrize("form", ["torch", "pickle"])
def test_no_file_of_an_adapter_runs_code(run, tmp_path, form):
    policy = tiny.team(tiny.base_model(64))
    policy.save(tmp_path / "saved")
    whole = tmp_path / "saved" / "agent_0"
    for name in {*PICKLES, *(file.name for file in whole.iterdir())}:
        folder = shutil.copytree(whole, tmp_path / name)
        plant(folder / name, tmp_path / "mark", form)
        reads = [
            partial(policy.load_adapter, "agent_1"),
            partial(policy.add_frozen, f"frozen-{name.replace('.', '-')}"),
            partial(check_adapter, tiny.lora_config(), tiny.base_model(64)),
        ]
        for read in reads:
            with nullcontext() if name in (*PICKLES, "README.md") else pytest.raises(ValueError, match="adapter"):
                read(folder)
        assert not (tmp_path / "mark").exists(), name


@pytest.mark.parametrize("form", ["torch", "pickle"])
@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors", "tokenizer.json", "config.json"])
def test_no_file_of_a_model_runs_code(tmp_path, name, form):
    tiny.byte_tokenizer().save_pretrained(tmp_path / "model")
    tiny.base_model(259).save_pretrained(tmp_path / "model")
    if name == "pytorch_model.bin":  # is read where there is nothing better
        (tmp_path / "model" / "model.safetensors").unlink()
    plant(tmp_path / "model" / name, tmp_path / "mark", form)
    with pytest.raises(OSError, match="cannot be loaded"):
        load_base(str(tmp_path / "model"), "float32")
    assert not (tmp_path / "mark").exists()


def test_python_that_comes_with_a_model_is_not_run(tmp_path):
    tiny.byte_tokenizer().save_pretrained(tmp_path / "model")
    tiny.base_model(259).save_pretrained(tmp_path / "model")
    code = f"import os\nos.mkdir({str(tmp_path / 'mark')!r})\n"
    for name in ("mine.py", "custom_generate/generate.py", "modeling_llama.py"):
        (tmp_path / "model" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "model" / name).write_text(code)
    for name, classes in (
        ("config.json", {"AutoConfig": "mine.C", "AutoModelForCausalLM": "mine.M"}),
        ("tokenizer_config.json", {"AutoTokenizer": ["mine.T", "mine.T"]}),
    ):
        file = tmp_path / "model" / name
        file.write_text(json.dumps(json.loads(file.read_text()) | {"auto_map": classes}))
    load_base(str(tmp_path / "model"), "float32")
    assert not (tmp_path / "mark").exists()


@pytest.fixture
def planted(tmp_path, monkeypatch) -> str:
    """Name of a module that can be imported, and makes a folder once it is."""
    name = f"planted_{tmp_path.name}"
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / f"{name}.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'mark')!r})\nclass C: pass\n")
    monkeypatch.syspath_prepend(tmp_path / "path")
    return name


def fields_that_name(module: str) -> dict[str, object]:
    """What files of other libraries have to name a class by, here one of `module`."""
    named, place = f"{module}.C", {"parent_library": module, "base_model_class": "C"}
    classes = dict.fromkeys(("AutoConfig", "AutoModelForCausalLM", "AutoModel"), named)
    single = dict.fromkeys("custom_object custom_module _target_ class_name attn_implementation".split(), named)
    return {"auto_map": classes, "auto_mapping": place, "custom_objects": {"C": named}, **single}


def test_no_field_of_an_adapters_configuration_names_code_that_runs(run, tmp_path, planted):
    folder = shutil.copytree(run / "checkpoint-1" / "agent_0", tmp_path / "adapter")
    file, policy = folder / "adapter_config.json", tiny.team(tiny.base_model(len(tiny.word_tokenizer(tiny.WORDS))))
    for field, value in fields_that_name(planted).items():
        file.write_text(json.dumps(json.loads(file.read_text()) | {field: value}))
        policy.load_adapter("agent_1", folder)
        assert not (tmp_path / "mark").exists(), field
    importlib.import_module(planted)
    assert (tmp_path / "mark").exists()


def test_no_field_of_a_models_configuration_names_code_that_runs(tmp_path, planted):
    for field, value in fields_that_name(planted).items():
        folder = tmp_path / field
        tiny.byte_tokenizer().save_pretrained(folder)
        tiny.base_model(259).save_pretrained(folder)
        for name in ("config.json", "generation_config.json", "tokenizer_config.json"):
            content = json.loads((folder / name).read_text())
            (folder / name).write_text(json.dumps(content | {field: value}))
        load_base(str(folder), "float32")
        assert not (tmp_path / "mark").exists(), field


@pytest.mark.parametrize("kernel", ["kernels-community/flash-attn3", "flash_attention_3"])
def test_a_models_configuration_picks_no_kernel_of_the_hub(tmp_path, kernel):
    """Which is code, and is loaded where the package `kernels` is installed; without it, the model would not load."""
    tiny.byte_tokenizer().save_pretrained(tmp_path / "model")
    tiny.base_model(259).save_pretrained(tmp_path / "model")
    file = tmp_path / "model" / "config.json"
    for named in (kernel, {"": kernel}):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"_attn_implementation": named}))
        model, _ = load_base(str(tmp_path / "model"), "float32")
        assert model.config._attn_implementation == "sdpa"


def test_a_template_of_chats_reaches_no_python(tmp_path):
    tokenizer = tiny.byte_tokenizer()
    tokenizer.chat_template = f"{{{{ cycler.__init__.__globals__.os.mkdir({str(tmp_path / 'mark')!r}) }}}}"
    with pytest.raises(ValueError, match="template"):
        Chat(tokenizer, "team")
    assert not (tmp_path / "mark").exists()


def test_a_runs_folder_brings_no_module_of_its_own(tmp_path):
    run = tmp_path / "run"
    (run / "code").mkdir(parents=True)
    (run / "code" / "planted_rewards.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'mark')!r})\n")
    configuration = "rewards: {'planted_rewards:Term': {weight: 1.0}}\n"
    rundir.record_start(run, "planted", configuration, seed=0, modules=[run / "code", run])
    with pytest.raises(ConfigError, match="planted_rewards"):
        recorded_config(run)
    assert not (tmp_path / "mark").exists()
    assert not [place for place in sys.path if place.startswith(str(run))]
