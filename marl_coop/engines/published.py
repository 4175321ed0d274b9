"""Adapters on disk for an engine that reads them from there."""

import hashlib
import os
import re
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from envs.core.tokens import one_line
from envs.sandbox.scratch import give_back, held_folder
from marl_coop.engines.base import EngineError
from marl_coop.players import BASE
from marl_coop.policy.adapters import WEIGHTS
from marl_coop.policy.loading import move_into_place
from marl_coop.policy.team import TeamPolicy
from marl_coop.policy.tensor_files import write_tensors


class PublishedAdapters:
    """The adapters of a team, each in a folder whose name says its content.

    Engines keep what they have read under an adapter's name: its weights, and the key-value caches that these made. So
    a name never stands for two contents. It is the adapter's own name and a hash of its weights: an adapter that has
    changed has a new name, and one that has not keeps its own, with all that is cached. A folder appears whole, by a
    rename, and stays for one publication longer than its content.

    The base is published as well, as an adapter of zeros. (vLLM 0.32 on a CPU gives a row without an adapter that of
    its last slot, if any other row of the batch has one: it takes the -1 that stands for none as an index.)

    Args:
        policy: the team.
        parent: folder to publish in, in a folder of its own that goes when the process ends; None: the system's place
            for temporary files.
        prefix: begins every name, so that teams that share a server do not share names.

    Raises:
        EngineError: the folder cannot take them, here or in `publish`.
    """

    def __init__(self, policy: TeamPolicy, parent: Path | None = None, prefix: str = ""):
        self.policy, self.prefix = policy, prefix
        try:
            if parent is not None:
                parent.mkdir(parents=True, exist_ok=True)
            folder, holder = held_folder(parent)
        except OSError as error:
            raise _cannot_publish(parent or tempfile.gettempdir(), error) from error
        self.folder = folder.resolve()
        weakref.finalize(self, give_back, self.folder, holder)
        os.chmod(self.folder, 0o755)  # a server may run as another user
        self._before: dict[str | None, Path] = {}
        self._now: dict[str | None, Path] = {BASE: self._write_base()}

    def publish(self) -> dict[str | None, Path]:
        """Folder of every adapter as it is now, of those that are trained, of the frozen ones, and of the base."""
        now = {BASE: self._now[BASE]} | {adapter: self._write(adapter) for adapter in self.policy.all_adapters}
        if now != self._now:
            for folder in {*self._before.values()} - {*self._now.values(), *now.values()}:
                shutil.rmtree(folder)
            self._before, self._now = self._now, now
        return now

    @property
    def names(self) -> set[str]:
        """Of all that an engine may know."""
        return {folder.name for folder in (*self._before.values(), *self._now.values())}

    def _write(self, adapter: str) -> Path:
        with self._unfinished() as unfinished:
            self.policy.save_adapter(adapter, unfinished)
            return self._publish(unfinished, adapter)

    def _write_base(self) -> Path:
        with self._unfinished() as unfinished:
            self.policy.save_adapter(self.policy.adapters[0], unfinished)
            weights = load_file(unfinished / WEIGHTS)
            write_tensors({name: torch.zeros_like(weight) for name, weight in weights.items()}, unfinished / WEIGHTS)
            return self._publish(unfinished, "base")

    @contextmanager
    def _unfinished(self) -> Iterator[Path]:
        try:
            yield self.folder / ".unfinished"
        except (OSError, SafetensorError) as error:
            raise _cannot_publish(self.folder.parent, error) from error

    def _publish(self, unfinished: Path, adapter: str) -> Path:
        content = hashlib.sha256((unfinished / WEIGHTS).read_bytes()).hexdigest()[:16]
        name = re.sub(r"[^A-Za-z0-9_-]", "_", adapter)
        folder = self.folder / f"{self.prefix}{name}-{content}"
        move_into_place(unfinished, folder)
        return folder


def _cannot_publish(parent: str | Path, error: Exception) -> EngineError:
    return EngineError(f"adapters cannot be published in {str(parent)!r}: {one_line(error)}")
