"""Folders for temporary files, of processes that live and of those that were killed."""

import os
import subprocess
import sys

import pytest

from envs.sandbox import scratch

HOLD = """
import sys
from envs.sandbox.scratch import scratch
with scratch() as folder:
    (folder / "closed").mkdir(mode=0)
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def holder(place):
    command = [sys.executable, "-c", HOLD]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env={**os.environ, "TMPDIR": str(place)}, **pipes)


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_has_is_not(place):
    with holder(place) as killed, holder(place) as living:
        folders = [process.stdout.readline().strip() for process in (killed, living)]
        scratch.remove_abandoned()
        assert [os.path.isdir(folder) for folder in folders] == [True, True]
        killed.kill()
        killed.wait()
        scratch.remove_abandoned()
        assert [os.path.isdir(folder) for folder in folders] == [False, True]
        living.communicate("")
    assert list(place.iterdir()) == []


def test_what_belongs_to_another_user_or_is_no_folder_of_this_kind_stays(place, monkeypatch):
    theirs, elsewhere = place / f"{scratch.PREFIX}theirs", place / "marl-coop-elsewhere"
    for folder in (theirs, elsewhere):
        folder.mkdir()
    (place / f"{scratch.PREFIX}link").symlink_to(elsewhere)
    (place / f"{scratch.PREFIX}file").touch()
    there = sorted(place.iterdir())
    user = os.geteuid()
    monkeypatch.setattr("os.geteuid", lambda: user + 1)
    scratch.remove_abandoned()
    assert sorted(place.iterdir()) == there
    monkeypatch.setattr("os.geteuid", lambda: user)
    scratch.remove_abandoned()
    assert sorted(place.iterdir()) == [path for path in there if path != theirs]


def test_a_folder_that_is_removed_before_it_is_locked_is_made_anew(place, monkeypatch):
    flock, removed = scratch.fcntl.flock, []

    def late(holder, operation):
        if not removed:
            removed.append(next(place.iterdir()))
            removed[0].rmdir()
        flock(holder, operation)

    monkeypatch.setattr(scratch.fcntl, "flock", late)
    with scratch.scratch() as folder:
        assert folder.is_dir() and folder not in removed
    assert list(place.iterdir()) == []


def test_where_there_are_no_locks_folders_are_made_and_none_is_taken_for_abandoned(place, monkeypatch):
    def none(*_):
        raise OSError("no locks available")

    monkeypatch.setattr(scratch.fcntl, "flock", none)
    with scratch.scratch() as folder:
        scratch.remove_abandoned()
        assert folder.is_dir()
