"""The command line and the run directory: exit codes, one line per error, and what a run leaves behind."""

import os
import re
import signal
import subprocess
import sys
import time
import types
from contextlib import nullcontext, suppress
from pathlib import Path

import pytest
from test_run_folder import checkpoint
from train_py import hear_interrupts

import marl_coop
from envs.sandbox import SandboxError
from marl_coop import cli
from marl_coop.cli import entry
from marl_coop.config.schema import load_config
from marl_coop.engines import EngineError
from marl_coop.rollout.endpoint import EndpointError
from marl_coop.runs.rundir import TrainingError
from marl_coop.stops import hear_stops

ROOT = Path(__file__).parent.parent
QUICKSTART = str(ROOT / "configs/quickstart.yaml")


def train_py(*words: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "train.py", *words], cwd=ROOT, capture_output=True, text=True)


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


def test_an_error_is_one_line_and_exit_code_2():
    result = train_py("--config", QUICKSTART, "lora.rnk=3")
    assert result.returncode == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: command line: lora.rnk: unknown key; did you mean")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--config", "configs/quikstart.yaml"], "did you mean 'configs/quickstart.yaml'?"),
        (["--config", QUICKSTART, "--resume", "nowhere"], "no checkpoint in 'nowhere'"),
        (["--config", QUICKSTART, "rewards[no_lab:X].weight=1"], "add the folder of the module to PYTHONPATH"),
    ],
)
def test_an_error_says_what_helps(words, expected, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert cli.main(["train", *words]) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert line.startswith("error: ") and expected in line
    assert captured.out == ""


def test_one_of_several_processes_says_the_error_and_ends_the_launch_with_2(tmp_path):
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", "configs/accelerate/cpu2.yaml"]
    command = [*launch, "train.py", "--config", QUICKSTART, "lora.rnk=3"]
    places = os.environ | {"TMPDIR": str(tmp_path)}  # a launcher whose processes fail leaves its folder
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=places)
    assert result.returncode != 0 and result.stdout == ""
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: command line: lora.rnk: unknown key; did you mean")
    assert not re.search(r'File ".*(train\.py|marl_coop/.*)"', result.stderr)  # the launcher's own trace remains
    *others, first = re.findall(r"exitcode *: (\d+)", result.stderr)  # the launcher's root cause stands last
    assert first == "2" and {*others} <= {"2", "130"}  # it ends the others: one may not have got as far as the error


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


def test_a_reward_term_that_cannot_score_is_one_line_before_torch_is_loaded(tmp_path):
    cases = [
        ("1 / 0", "fails on a scripted episode: ZeroDivisionError: division by zero"),
        ("[float('nan') for turn in episode.turns_of(agent)]", "gives nan on a scripted episode"),
        ("[0.0]", "reward term 'odd' gave 1 values for the 3 turns of 'agent_0'"),
        ("['much' for turn in episode.turns_of(agent)]", "reward term 'odd' gave 'much', which is no number"),
    ]
    text = "from rewards import RewardTerm\n\nclass Odd(RewardTerm):\n    weight: float = 1.0\n\n"
    for i, (returned, _) in enumerate(cases):
        body = f"    def __call__(self, episode, agent):\n        return {returned}\n"
        (tmp_path / f"odd_terms_{i}.py").write_text(text + body)
    code = (
        "import sys; from marl_coop.cli import main\n"
        f"said = [main([*sys.argv[1:], f'rewards[odd_terms_{{i}}:Odd].weight=1.0']) for i in range({len(cases)})]\n"
        f"sys.exit('torch was loaded' if 'torch' in sys.modules else said != {[2] * len(cases)})"
    )
    words = [sys.executable, "-c", code, "train", "--config", QUICKSTART]
    places = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    result = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, env=places)
    assert result.returncode == 0, result.stderr
    for i, (line, (_, problem)) in enumerate(zip(result.stderr.splitlines(), cases, strict=True)):
        assert line.startswith(f"error: command line: rewards.odd_terms_{i}:Odd: ")
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


def test_the_version_and_the_module(capsys):
    words = [sys.executable, "-m", "marl_coop", "--version"]
    result = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout == f"marl-coop {marl_coop.__version__}\n"


@pytest.mark.parametrize(
    "words", [["eval", "{}", "--quick"], ["view", "{}"], ["show", "{}", "after:1"], ["train", "--resume", "{}"]]
)
def test_a_path_that_no_disk_takes_is_one_line(words, capsys):
    assert cli.main([word.format("a" * 5000) for word in words]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: 'aaaa") and said.count("\n") == 1 and len(said) < 200


@pytest.mark.parametrize("error", [EndpointError, EngineError, SandboxError])
@pytest.mark.parametrize("note", ["There is no checkpoint yet: --resume runs/a begins its training again.", ""])
def test_an_endpoint_engine_or_sandbox_that_fails_ends_the_command_with_one_line(monkeypatch, capsys, error, note):
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
    numbers, ended = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP), []
    before = [signal.getsignal(number) for number in numbers]
    monkeypatch.setattr(os, "_exit", ended.append)
    monkeypatch.setitem(entry.COMMANDS, "train", lambda argv: (_ for _ in ()).throw(stop))
    try:
        with suppress(SystemExit):
            assert cli.main(["train"]) == 130
        for number in numbers:
            signal.raise_signal(number)
        assert ended == [130] * 3
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def test_a_reason_without_a_full_stop_gets_one_before_what_to_do(monkeypatch, capsys):
    def fails(argv):
        raise TrainingError("100% of an update's episodes met a sandbox fault")

    monkeypatch.setitem(entry.COMMANDS, "train", fails)
    assert cli.main(["train"]) == 1
    assert capsys.readouterr().err.endswith("met a sandbox fault. Then run it again.\n")


@pytest.mark.parametrize("argv", [["--help"], []])
def test_help_says_of_each_command_what_it_does(argv, capsys):
    with pytest.raises(SystemExit):
        cli.main(argv)
    told = capsys.readouterr().out
    assert all(re.search(rf"^  {name} +[A-Z][^;.]+$", told, re.MULTILINE) for name in entry.COMMANDS)


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stop_while_a_command_is_loaded_is_one_line(signal_number, tmp_path):
    code = "import os, sys; from marl_coop.cli import main; assert 'marl_coop.cli.entry' not in sys.modules\n"
    code += "sys.meta_path.insert(0, type('', (), {'find_spec': lambda name, *_: name == 'marl_coop.cli.entry' and "
    code += f"os.kill(os.getpid(), {signal_number}) or None}}))\nsys.exit(main(['audit', '--help']))"
    options = {"capture_output": True, "text": True, "check": False, "preexec_fn": hear_interrupts}
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, **options)
    assert (process.returncode, process.stderr) == (130, "stopped\n")


@pytest.mark.parametrize(("before", "heard"), [(signal.SIG_DFL, True), (signal.SIG_IGN, False)])
def test_a_terminal_that_closes_stops_a_run_but_under_nohup(before, heard):
    numbers = (signal.SIGHUP, signal.SIGTERM)
    handlers = [signal.getsignal(number) for number in numbers]
    try:
        signal.signal(signal.SIGHUP, before)
        hear_stops()
        with pytest.raises(KeyboardInterrupt) if heard else nullcontext():
            signal.raise_signal(signal.SIGHUP)
    finally:
        for number, handler in zip(numbers, handlers, strict=True):
            signal.signal(number, handler)


RUN = """from marl_coop.experiment.console import run_console
def command(argv):
    try:
        while True: run_console(quiet=False).print("x" * 99)
    except Exception as error:
        error.add_note("There is no checkpoint yet.")
        raise
"""


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (RUN, "error: [Errno 32] nobody reads what is printed any longer. There is no checkpoint yet.\n"),
        ("def command(argv): print('x' * 10**6)", ""),
        ("def command(argv): print('x')", ""),
    ],
    ids=["a run", "a long table", "a short one"],
)
def test_a_reader_that_ends_is_no_traceback_and_a_run_says_that_it_has_ended(code, said):
    code += "\nimport sys\nfrom marl_coop.cli import entry, main\nentry.COMMANDS['show'] = command\n"
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write) as nobody:
        words = [sys.executable, "-c", f"{code}sys.exit(main(['show']))"]
        process = subprocess.run(words, cwd=ROOT, stdout=nobody, stderr=subprocess.PIPE, text=True)
    assert (process.returncode, process.stderr) == (1, said)
