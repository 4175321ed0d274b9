"""One run of an ablation, apart from what plans it: the job of a cluster that starts it need not load torch itself."""

from dataclasses import dataclass
from pathlib import Path

from marl_coop.runs.checkpoints import has_ended


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmRun:
    """One arm with one seed, and the words of `marl-coop train` that begin it."""

    arm: str
    seed: int
    folder: Path
    words: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.arm}-seed-{self.seed}"

    @property
    def begun(self) -> bool:
        return (self.folder / "run.json").is_file()

    @property
    def finished(self) -> bool:
        return has_ended(self.folder)

    def command(self) -> list[str]:
        """The words that begin the run or, where it has begun, go on with it."""
        return ["train", "--resume", str(self.folder)] if self.begun else ["train", *self.words]
