"""The command line and the run directory: exit codes, one line per error, and what a run leaves behind."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import types
from contextlib import suppress
from pathlib import Path

import pytest
from train_py import hear_interrupts

import marl_coop
from envs import sandbox
from marl_coop import cli
from marl_coop.cli import entry
from marl_coop.config.schema import load_config
from marl_coop.engines import EngineError
from marl_coop.rollout.endpoint import EndpointError
from marl_coop.runs import checkpoints, records, rundir
from marl_coop.runs.checkpoints import CheckpointError
from marl_coop.runs.lock import held

ROOT = Path(__file__).parent.parent
QUICKSTART = str(ROOT / "configs/quickstart.yaml")


def train_py(*words: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "train.py", *words], cwd=ROOT, capture_output=True, text=True)


def checkpoint(run: Path, step: int, complete: bool = True) -> Path:
    run.mkdir(parents=True, exist_ok=True)
    rundir.record_start(run, "quickstart", load_config([QUICKSTART]).to_yaml(), seed=0)
    folder, aside = run / f"checkpoint-{step}", run / checkpoints.ASIDE / f"checkpoint-{step}"
    (aside if complete else folder).mkdir(parents=True)
    if complete:
        for name in checkpoints.NEEDED:
            (aside / name).write_text("{}")
        checkpoints.publish(aside, run, limit=None)
    return folder


@pytest.fixture
def started(monkeypatch, tmp_path):
    """Training replaced by a list of what it was called with, in an empty working directory."""
    calls = []
    experiment = types.ModuleType("marl_coop.experiment.experiment")

    class Recorder:
        def __init__(self, config, resume=None):
            self.call = config, resume

        @classmethod
        def resume(cls, place, config):
            return cls(config, place)

        def run(self, profile=False):
            calls.append(self.call)

    experiment.Experiment = Recorder
    monkeypatch.setitem(sys.modules, "marl_coop.experiment.experiment", experiment)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.chdir(tmp_path)
    return calls


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--config", "configs/quikstart.yaml"], "did you mean 'configs/quickstart.yaml'?"),
        (["--config", QUICKSTART, "lora.rnk=3"], "command line: lora.rnk: unknown key; did you mean"),
        (["--config", QUICKSTART, "--resume", "nowhere"], "no checkpoint in 'nowhere'"),
        (["--config", QUICKSTART, "rewards[no_lab:X].weight=1"], "add the folder of the module to PYTHONPATH"),
    ],
)
def test_an_error_is_one_line_and_exit_code_2(words, expected):
    result = train_py(*words)
    assert result.returncode == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert expected in line


def test_one_of_several_processes_says_the_error_and_all_exit_with_2():
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", "configs/accelerate/cpu2.yaml"]
    command = [*launch, "train.py", "--config", QUICKSTART, "lora.rnk=3"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode != 0 and result.stdout == ""
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: command line: lora.rnk: unknown key; did you mean")
    assert not re.search(r'File ".*(train\.py|marl_coop/.*)"', result.stderr)  # the launcher's own trace remains
    assert {*re.findall(r"exitcode *: (\d+)", result.stderr)} == {"2"}


def test_a_process_that_is_left_alone_with_an_error_says_it(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    handler = signal.getsignal(signal.SIGTERM)
    try:
        monkeypatch.setattr(time, "sleep", lambda seconds: None)
        assert cli.main(["train", "--config", QUICKSTART, "lora.rnk=3"]) == 2
        assert capsys.readouterr().err.startswith("error: command line: lora.rnk: unknown key")
        monkeypatch.setattr(time, "sleep", lambda seconds: signal.raise_signal(signal.SIGTERM))  # as a launcher does
        assert cli.main(["train", "--config", QUICKSTART, "lora.rnk=3"]) == 2
    finally:
        signal.signal(signal.SIGTERM, handler)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "override",
    ["seed=x", "nonsense", "rewards.consensus.weight=-1", "env.name=Nope", "rewards.nope.weight=1", "env.nope=1"],
)
def test_every_kind_of_error_takes_the_same_way(override, capsys, started):
    assert cli.main(["train", "--config", QUICKSTART, override]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: command line: ")
    assert captured.err.count("\n") == 1
    assert started == []


@pytest.mark.parametrize(
    ("returned", "problem"),
    [
        ("1 / 0", "fails on a scripted episode: ZeroDivisionError: division by zero"),
        ("[float('nan') for turn in episode.turns_of(agent)]", "gives nan on a scripted episode"),
        ("[0.0]", "reward term 'odd' gave 1 values for the 3 turns of 'agent_0'"),
        (
            "['much' for turn in episode.turns_of(agent)]",
            "reward term 'odd' gave 'much', which is no number",
        ),
    ],
)
def test_a_reward_term_that_cannot_score_is_one_line_before_torch_is_loaded(returned, problem, tmp_path):
    text = "from rewards import RewardTerm\n\nclass Odd(RewardTerm):\n    weight: float = 1.0\n\n"
    (tmp_path / "odd_terms.py").write_text(
        f"{text}    def __call__(self, episode, agent):\n        return {returned}\n"
    )
    code = (
        "import sys; from marl_coop.cli import main; status = main(sys.argv[1:]);"
        "sys.exit('torch was loaded' if 'torch' in sys.modules else status)"
    )
    words = [sys.executable, "-c", code, "train", "--config", QUICKSTART, "rewards[odd_terms:Odd].weight=1.0"]
    places = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    result = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, env=places)
    assert result.returncode == 2, result.stderr
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: command line: rewards.odd_terms:Odd: ")
    assert problem in line


def test_approval_of_a_seat_that_there_is_not_is_refused(capsys, started):
    assert cli.main(["train", "--config", QUICKSTART, "rewards.approval.agent=agent_7"]) == 2
    assert "rewards.approval.agent: 'agent_7' is no seat" in capsys.readouterr().err
    assert started == []


def test_print_config_round_trips_without_torch(tmp_path):
    code = (
        "import sys; from marl_coop.cli import main; status = main(sys.argv[1:]);"
        "sys.exit('torch was loaded' if 'torch' in sys.modules else status)"
    )
    words = ["train", "training.learning_rate=1e-5", "--config", QUICKSTART, "--print-config", "seed=7"]
    result = subprocess.run([sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    printed = tmp_path / "printed.yaml"
    printed.write_text(result.stdout)
    config = load_config([printed])
    assert config == load_config([QUICKSTART], ["training.learning_rate=1e-5", "seed=7"])
    assert (config.seed, config.training["learning_rate"]) == (7, 1e-5)


def test_files_and_overrides_may_be_mixed(started):
    ablation = str(ROOT / "configs/ablations/no_deference.yaml")
    assert cli.main(["train", "seed=1", "--config", QUICKSTART, "lora.r=2", "--config", ablation, "lora.alpha=4"]) == 0
    ((config, resume),) = started
    assert (config.seed, config.lora.r, config.lora.alpha, config.rewards["deference"]["weight"]) == (1, 2, 4, 0)
    assert resume is None


def test_resume_takes_the_newest_run_with_a_complete_checkpoint(started, tmp_path):
    old, new = tmp_path / "runs/quickstart-20250101-000000", tmp_path / "runs/quickstart-20250102-000000"
    checkpoint(old, 3)
    checkpoint(new, 9)
    expected = checkpoint(new, 10)
    checkpoint(new, 11, complete=False)
    checkpoint(tmp_path / "runs/quickstart-20250103-000000", 1, complete=False)
    checkpoint(tmp_path / "runs/quickstart-other-20250104-000000", 50)
    os.utime(old, (1, 1))
    assert cli.main(["train", "--config", QUICKSTART, "--resume"]) == 0
    assert cli.main(["train", "--config", QUICKSTART, "--resume", "training.num_updates=99"]) == 0
    (_, by_name), (config, followed) = started
    assert by_name.resolve() == followed.resolve() == expected
    assert config.training["num_updates"] == 99


def test_resume_from_a_named_folder(started, tmp_path):
    expected = checkpoint(tmp_path / "elsewhere", 4)
    for folder in (tmp_path / "elsewhere", expected):
        assert cli.main(["train", "--config", QUICKSTART, "--resume", str(folder)]) == 0
    assert cli.main(["train", "--config", QUICKSTART, "--resume", f"output_dir={tmp_path / 'elsewhere'}"]) == 0
    assert [resume for _, resume in started] == [expected] * 3


def test_a_new_run_gets_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folders = {rundir.new_folder("twice") for _ in range(3)}
    assert len(folders) == 3
    assert all(folder.is_dir() and folder.name.startswith("twice-") for folder in folders)


def test_a_run_is_not_overwritten(tmp_path):
    place = str(tmp_path / "run")
    assert rundir.new_folder("first", place) == tmp_path / "run"
    assert rundir.new_folder("first", place) == tmp_path / "run"  # still empty
    rundir.record_start(tmp_path / "run", "first", "", seed=0)
    with pytest.raises(rundir.RunError, match=r".* is not empty; go on with its run by --resume"):
        rundir.new_folder("first", place)


def test_a_run_directory_explains_itself(tmp_path):
    config = load_config([QUICKSTART], ["seed=5"])
    rundir.record_start(tmp_path, config.title, config.to_yaml(), config.seed)
    later = load_config([QUICKSTART], ["seed=5", "training.max_steps=9"])
    rundir.record_start(tmp_path, later.title, later.to_yaml(), later.seed)
    assert load_config([tmp_path / "config.yaml"]) == config
    record = json.loads((tmp_path / "run.json").read_text())
    first, second = record["starts"]
    assert (record["name"], first["seed"], first["config"]) == ("quickstart", 5, "config.yaml")
    assert load_config([tmp_path / second["config"]]).training["max_steps"] == 9
    assert {"python", "torch", "trl", "transformers", "peft", "accelerate"} <= first["versions"].keys()
    assert first["sandbox"] == sandbox.describe().splitlines()
    assert first["command"]
    assert first["git"] is None or set(first["git"]) == {"commit", "dirty"}  # None: not a checkout, or no commit yet


def test_a_run_is_one_process_alone(tmp_path):
    code = "import sys; from marl_coop.runs.lock import held\nwith held(__import__('pathlib').Path(sys.argv[1])): pass"
    with held(tmp_path):
        second = subprocess.run([sys.executable, "-c", code, tmp_path], cwd=ROOT, capture_output=True, text=True)
    assert second.stderr.splitlines()[-1].endswith("is run by another process; wait for it, or stop it")
    subprocess.run([sys.executable, "-c", code, tmp_path], cwd=ROOT, check=True)


def test_a_folder_in_which_nothing_can_be_locked_is_one_line(tmp_path):
    (tmp_path / rundir.LOCK).mkdir()
    with (
        pytest.raises(rundir.RunError, match=r"cannot be kept from other processes: .*Is a directory.*$"),
        held(tmp_path),
    ):
        pass


def test_a_file_of_a_run_that_is_gone_is_one_line_and_others_are_not_hidden(tmp_path):
    (tmp_path / "run").mkdir()
    with (
        pytest.raises(CheckpointError, match=r"run' cannot be used any longer: .*No such file.*lost'$"),
        held(tmp_path / "run"),
    ):
        (tmp_path / "run" / "lost").read_text()
    with pytest.raises(FileNotFoundError), held(tmp_path / "run"):
        (tmp_path / "elsewhere").read_text()
    shutil.rmtree(tmp_path / "run")
    assert rundir.going_on(tmp_path / "run") == f"its folder, {str(tmp_path / 'run')!r}, is gone"


@pytest.mark.parametrize(("before", "after"), [("seed: 5", "seed: 6"), ("training:", "")])
def test_a_run_does_not_go_on_with_a_configuration_that_was_changed_in_its_folder(tmp_path, before, after):
    """Nor with one that was cut, of which the rest would be the defaults."""
    config = load_config([QUICKSTART], ["seed=5"])
    last = checkpoint(tmp_path, 4)
    rundir.record_start(tmp_path, config.title, config.to_yaml(), config.seed)
    assert rundir.locate(tmp_path) == rundir.locate(last) == (tmp_path, last)
    text = config.to_yaml()
    changed = text.replace(before, after) if after else text[: text.index(before)]
    rundir.configuration_of(tmp_path).write_text(changed)
    for place in (tmp_path, last):
        with pytest.raises(rundir.RunError, match=r"config-2.yaml' is not what the run wrote there: put that back"):
            rundir.locate(place)


def test_the_configuration_of_a_run_lies_in_its_folder(tmp_path):
    rundir.record_start(tmp_path, "x", "", seed=0)
    text = (tmp_path / "run.json").read_text()
    (tmp_path / "run.json").write_text(text.replace('"config.yaml"', '"../config.yaml"'))
    with pytest.raises(rundir.RunError, match=r"its configuration, '../config.yaml', is no file in it"):
        rundir.configuration_of(tmp_path)


def test_a_run_has_one_id_by_whatever_path_it_is_called(tmp_path, monkeypatch):
    run = tmp_path / "run"
    run.mkdir()
    rundir.record_start(run, "x", "", seed=0)
    (tmp_path / "link").symlink_to(run)
    monkeypatch.chdir(run)
    assert len({rundir.run_id(Path(place)) for place in (run, ".", "../run", tmp_path / "link")}) == 1


def test_what_is_no_run_is_told_so_in_one_line(tmp_path):
    for open_run in (rundir.configuration_of, rundir.saved_policy, rundir.locate):
        with pytest.raises(rundir.RunError, match="no run|not the folder of a run") as caught:
            open_run(tmp_path)
        assert "\n" not in str(caught.value)
    rundir.record_start(tmp_path, "new", "", seed=0)
    with pytest.raises(rundir.RunError, match="no adapters yet"):
        rundir.saved_policy(tmp_path)
    checkpoint(tmp_path, 4)
    with pytest.raises(rundir.RunError, match="no checkpoint 'checkpoint-5'; it has checkpoint-4"):
        rundir.saved_policy(tmp_path, "checkpoint-5")
    assert rundir.saved_policy(tmp_path) == tmp_path / "checkpoint-4"


def test_a_stopped_run_is_told_what_resume_will_do(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    assert rundir.going_on(None) == rundir.going_on(run) == "the run had not begun"
    rundir.record_start(run, "stopped", "", seed=0)
    assert rundir.going_on(run) == f"there is no checkpoint yet: --resume {run} begins its training again"
    last = checkpoint(run, 4)
    checkpoint(run, 8, complete=False)
    assert rundir.going_on(run) == f"--resume {run} goes on from checkpoint-4"
    spaced = shutil.copytree(run, tmp_path / "a run #1")
    assert rundir.going_on(spaced) == f"--resume '{spaced}' goes on from checkpoint-4"
    (last / "optimizer.pt").unlink()
    assert f"{str(run)!r} has no whole checkpoint" in rundir.going_on(run)


@pytest.mark.parametrize("record", ["{}", "[]", '{"name": "x", "starts": []}', '{"name": "x", "sta', "[" * 10**5])
def test_a_record_that_names_no_start_is_no_run(tmp_path, record):
    (tmp_path / "run.json").write_text(record)
    with pytest.raises(rundir.RunError, match="not the folder of a run: it has no run.json that can be read"):
        rundir.recorded(tmp_path)


@pytest.mark.parametrize("key", ["time", "command", "config", "seed", "git"])
def test_a_start_that_lacks_what_commands_read_of_it_is_no_run(tmp_path, key):
    rundir.record_start(tmp_path, "x", "", seed=0)
    record = rundir.recorded(tmp_path)
    del record["starts"][0][key]
    (tmp_path / "run.json").write_text(json.dumps(record))
    with pytest.raises(rundir.RunError, match=rf"\(starts\.0\.{key}: Field required\)"):
        rundir.recorded(tmp_path)


@pytest.mark.parametrize("key", ["modules", "learners"])
@pytest.mark.parametrize("value", ['"here"', "5", "null"])
def test_a_record_whose_folders_of_modules_or_learners_are_no_list_is_no_run(tmp_path, key, value):
    rundir.record_start(tmp_path, "x", "", seed=0)
    text = (tmp_path / "run.json").read_text()
    (tmp_path / "run.json").write_text(text.replace(f'"{key}": []', f'"{key}": {value}'))
    with pytest.raises(rundir.RunError, match="not the folder of a run: it has no run.json that can be read"):
        rundir.recorded(tmp_path)


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(rundir.RunError, match="cannot be made"):
        rundir.new_folder("x", str(tmp_path / "file" / "run"))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert rundir.new_folder("x", "~/mine") == tmp_path / "mine"


def test_metrics_after_a_checkpoint_are_taken_back(tmp_path):
    file = tmp_path / "metrics.jsonl"
    for step in (4, 8, 12):
        records.append_metrics(file, {"step": step, "update": step // 4})
    twice = file.read_text().splitlines(keepends=True)[0]
    file.write_text(file.read_text() + twice + '{"step": 16, "upd')  # the machine went down
    records.forget_metrics_after(file, 8)
    assert [record["update"] for record in records.read_metrics(file)] == [1, 2]


@pytest.mark.parametrize("line", ["[1]", "null", "{", '{"step": "4"}', '{"update": 1}', "\ufffd"])
def test_a_line_that_is_no_record_goes_when_a_run_goes_on_and_those_after_it_stay(tmp_path, line):
    file = tmp_path / "metrics.jsonl"
    file.write_text(f'{{"step": 4, "update": 1}}\n{line}\n{{"step": 8, "update": 2}}\n')
    records.forget_metrics_after(file, 8)
    assert [record["update"] for record in records.read_metrics(file)] == [1, 2]


@pytest.mark.parametrize("line", ["[1]", "{", '{"step": 4, "update": "one"}', '{"step": 4, "update": 1, "loss": "x"}'])
def test_metrics_that_are_no_numbers_are_told_so_in_one_line(tmp_path, line):
    (tmp_path / "metrics.jsonl").write_text(f'{{"step": 4, "update": 1}}\n{line}\n')
    with pytest.raises(
        rundir.RunError, match="metrics.jsonl' cannot be read as metrics: line 2 is cut off or of anoth"
    ):
        records.read_metrics(tmp_path / "metrics.jsonl")


def test_the_version_and_the_module(capsys):
    words = [sys.executable, "-m", "marl_coop", "--version"]
    result = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout == f"marl-coop {marl_coop.__version__}\n"


@pytest.mark.parametrize("error", [EndpointError, EngineError])
@pytest.mark.parametrize("note", ["There is no checkpoint yet: --resume runs/a begins its training again.", ""])
def test_an_endpoint_or_engine_that_fails_ends_the_command_with_one_line(monkeypatch, capsys, error, note):
    def fails(argv):
        failure = error("http://h/v1 gave 503: busy.")
        if note:  # of a run that has begun
            failure.add_note(note)
        raise failure

    monkeypatch.setitem(entry.COMMANDS, "train", fails)
    assert cli.main(["train"]) == 1
    assert capsys.readouterr().err == f"error: http://h/v1 gave 503: busy. {note or 'Then run it again.'}\n"


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), SystemExit(130)])
def test_who_is_asked_to_stop_once_more_while_it_ends_ends_at_once(monkeypatch, stop):
    numbers, ended = (signal.SIGINT, signal.SIGTERM), []
    before = [signal.getsignal(number) for number in numbers]
    monkeypatch.setattr(os, "_exit", ended.append)
    monkeypatch.setitem(entry.COMMANDS, "train", lambda argv: (_ for _ in ()).throw(stop))
    try:
        with suppress(SystemExit):
            assert cli.main(["train"]) == 130
        for number in numbers:
            signal.raise_signal(number)
        assert ended == [130, 130]
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def test_help_says_of_each_command_what_it_does(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    told = capsys.readouterr().out
    assert all(re.search(rf"^  {name} +[A-Z][^;.]+$", told, re.MULTILINE) for name in entry.COMMANDS)


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_while_a_command_is_loaded_is_one_line(signal_number, tmp_path):
    code = "import os, sys; from marl_coop.cli import main; assert 'marl_coop.cli.entry' not in sys.modules\n"
    code += "sys.meta_path.insert(0, type('', (), {'find_spec': lambda name, *_: name == 'marl_coop.cli.entry' and "
    code += f"os.kill(os.getpid(), {signal_number}) or None}}))\nsys.exit(main(['audit', '--help']))"
    options = {"capture_output": True, "text": True, "check": False, "preexec_fn": hear_interrupts}
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, **options)
    assert (process.returncode, process.stderr) == (130, "stopped\n")
