"""A disk that is full: what was good stays, nothing half written does, and it is said in one line."""

import errno
import subprocess

import pytest
import tiny
import torch
from safetensors.torch import save_file
from viewed import played

from envs.cooperbench.runner import RunStatus
from envs.repository.git import Repository, merge_file
from envs.sandbox import Status, run_in_tree
from marl_coop.cli import main
from marl_coop.engines import EngineError
from marl_coop.engines.published import PublishedAdapters
from marl_coop.policy.loading import filled
from marl_coop.runs import rundir
from marl_coop.runs.files import write_whole
from marl_coop.runs.records import append_metrics, forget_metrics_after, read_episodes, read_metrics, write_episodes


@pytest.fixture
def disk(tmp_path):
    """A disk of a mebibyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"needs to mount a small disk: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill(disk):
    """Leave not a byte; what takes the room."""
    filler = disk / "filler"
    with pytest.raises(OSError), filler.open("wb", buffering=0) as file:
        for size in (4096, 1):
            while True:
                file.write(b"0" * size)
    return filler


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_stays_as_it_was(disk):
    write_whole(disk / "file", "old")
    fill(disk)
    with pytest.raises(OSError) as caught:
        write_whole(disk / "file", "new" * 5000)
    assert caught.value.errno == errno.ENOSPC
    assert (disk / "file").read_text() == "old" and names(disk) == ["file", "filler"]


def test_episodes_stay_as_they_were(disk):
    write_episodes(disk / "before.jsonl", played(2))
    before = read_episodes(disk / "before.jsonl")
    fill(disk)
    with pytest.raises(OSError):
        write_episodes(disk / "before.jsonl", played(40))
    assert read_episodes(disk / "before.jsonl") == before and names(disk) == ["before.jsonl", "filler"]


def test_a_line_of_metrics_that_found_no_room_is_forgotten(disk):
    records = [{"step": step, "update": step, "loss": step / 7} for step in range(1, 2000)]
    append_metrics(disk / "metrics.jsonl", records[0])
    filler = fill(disk)
    with pytest.raises(OSError):
        for record in records[1:]:
            append_metrics(disk / "metrics.jsonl", record)
    filler.unlink()
    whole = (disk / "metrics.jsonl").read_text().count("\n")
    forget_metrics_after(disk / "metrics.jsonl", 5000)
    append_metrics(disk / "metrics.jsonl", records[whole])
    assert read_metrics(disk / "metrics.jsonl") == records[: whole + 1]


def test_a_run_that_found_no_room_to_begin_has_not_begun(disk):
    """Its folder is empty, so the same command begins it later."""
    folder = rundir.new_folder("run", str(disk / "run"))
    filler = fill(disk)
    with pytest.raises(OSError):
        rundir.record_start(folder, "run", "", seed=0)
    assert names(folder) == [] and rundir.going_on(folder) == "the run had not begun"
    filler.unlink()
    assert rundir.new_folder("run", str(folder)) == folder


def test_nothing_half_written_stays_in_the_cache(disk):
    fill(disk)
    with pytest.raises(OSError, match="warmup-1' cannot be written: .*No space left"), filled(disk / "warmup-1") as at:
        at.mkdir()
        save_file({"weight": torch.zeros(1000)}, at / "weights.safetensors")
    assert names(disk) == ["filler"]


def test_adapters_that_cannot_be_published_are_one_line(disk):
    policy = tiny.team(tiny.base_model(64))
    published = PublishedAdapters(policy, disk)
    now = published.publish()
    fill(disk)
    with torch.no_grad():
        policy.adapter_parameters("agent_0")[0].add_(1.0)
    with pytest.raises(EngineError, match=f"adapters cannot be published in '{disk}': .*No space left"):
        published.publish()
    assert all((folder / "adapter_model.safetensors").is_file() for folder in now.values())


def test_a_test_run_without_room_for_its_tree_is_a_fault_of_the_machine(disk, tmp_path, monkeypatch):
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "large.bin").write_bytes(bytes(2**21))
    monkeypatch.setattr("tempfile.tempdir", str(disk))
    run = run_in_tree(tmp_path / "tree", ["true"], timeout_s=20)
    assert run.status is Status.FAULT and run.exit_code is None and b"No space left" in run.output
    assert names(disk) == []


def test_tests_that_a_benchmark_has_no_room_to_run_are_a_fault_of_the_machine(disk, toy, monkeypatch):
    bench = toy[1].bench(toy[0])
    monkeypatch.setattr("tempfile.tempdir", str(disk))
    fill(disk)
    report = bench.run(bench.base, ("tests/test_shapes.py",))
    assert report.status is RunStatus.FAULT and "Out of diskspace" in report.detail
    assert names(disk) == ["filler"]


def test_git_without_room_says_so_and_not_that_a_patch_is_wrong(disk):
    repository = Repository.create(disk / "bare.git")
    base = repository.write({"a.py": b"x = 1\n"})
    patch = repository.diff(base, repository.with_files(base, {"a.py": b"x = 2\n"}))
    other = patch.replace("x = 2", "x = 3").replace("index ", "index 0")  # whose content the repository has not
    fill(disk)
    with pytest.raises(OSError) as caught:
        repository.apply(base, other)
    assert caught.value.errno == errno.ENOSPC and "git apply" in str(caught.value)


def test_a_merge_without_room_for_its_files_is_the_disks_error(disk, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(disk))
    fill(disk)
    with pytest.raises(OSError) as caught:
        merge_file("a\n", "b\n", "c\n" * 99)
    assert caught.value.errno == errno.ENOSPC and names(disk) == ["filler"]


@pytest.mark.parametrize("command", ["view", "export"])
def test_a_page_or_an_export_that_finds_no_room_is_one_line(disk, tmp_path, capsys, command):
    run = tmp_path / "run"
    run.mkdir()
    rundir.record_start(run, "run", "", seed=0)
    write_episodes(run / "before.jsonl", played(8))
    old = disk / "view.html"
    old.write_text("old")
    filler = fill(disk)
    words = {"view": [str(run), "--output", str(old)], "export": [str(run), "--to", "dataset", "--output", str(disk)]}
    try:
        code = main([command, *words[command]])
    except SystemExit as stopped:
        code = stopped.code
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert code in (1, 2) and "error: " in said and "No space left" in said
    assert old.read_text() == "old" and not list(disk.rglob("*.part"))
    filler.unlink()
