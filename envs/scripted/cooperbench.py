"""The partner that has the gold patch: a colleague whose work is right, and a check of the environment itself."""

from contextlib import suppress
from difflib import SequenceMatcher

from envs.cooperbench.env import CooperBench
from envs.cooperbench.tasks import built_by
from envs.core.env import CoopEnv
from envs.core.task import Seat
from envs.repository.actions import Replace, parse_actions
from envs.repository.git import PatchError
from envs.repository.working_copy import Files, edited


class Gold:
    """Writes the gold patch of its feature in its first turn, says nothing and submits.

    It leaves out what no action can do: files that a patch makes or removes, or that are no sources of the task; and
    alone, with two features, the second patch where that does not apply on top of the first.
    """

    @classmethod
    def plays(cls, env: CoopEnv) -> bool:
        """Whether it can play an environment: `CooperBench`."""
        return isinstance(env, CooperBench)

    def reply(self, env: CooperBench, seat: Seat) -> str:
        return "\n".join([*(written(edit) for edit in self.edits(env, seat)), "Submit"])

    def edits(self, env: CooperBench, seat: Seat) -> list[Replace]:
        """The patch as replacements, which apply in their order.

        Raises:
            ValueError: a line of the patch would end a block of the grammar.
        """
        task = env.dataset.task(env.pair.repo, env.pair.number)
        bench = env.evaluator.bench(task)
        first, *more = (task.features[feature].gold for feature in built_by(env.pair, env.seats)[seat])
        solved = bench.repository.apply(bench.base, first)
        for gold in more:
            with suppress(PatchError):
                solved = bench.repository.apply(solved, gold)
        made = []
        for path in bench.repository.changed(bench.base, solved):
            new = bench.repository.read(solved, path)
            if path in env.task.files and new is not None:
                made += hunks(env.task.files, path, new.decode("utf-8"))
        return made


def hunks(files: Files, path: str, new: str) -> list[Replace]:
    """The replacements that make a file read `new`, with as few lines around each as tell its place.

    >>> hunks({"a.py": "x = 1\\ny = 2\\nz = 3\\n"}, "a.py", "x = 1\\ny = 4\\nz = 3\\n")
    [Replace(path='a.py', old='x = 1\\ny = 2\\nz = 3', text='x = 1\\ny = 4\\nz = 3')]
    """
    a, b = (text.replace("\r\n", "\n").split("\n") for text in (files[path], new))
    context = 1
    while True:
        groups = SequenceMatcher(None, a, b, autojunk=False).get_grouped_opcodes(context)
        spans = [(slice(group[0][1], group[-1][2]), slice(group[0][3], group[-1][4])) for group in groups]
        made = [Replace(path, "\n".join(a[was]), "\n".join(b[is_now])) for was, is_now in spans]
        if _apply(files, made) == {**files, path: new}:
            return made
        if context > len(a):
            raise ValueError(f"{path} cannot be changed into what is wanted by replacements: is it text?")
        context *= 2


def _apply(files: Files, made: list[Replace]) -> Files | None:
    for edit in made:
        result = edited(files, edit)
        if isinstance(result, str):
            return None
        files = result
    return files


def written(edit: Replace) -> str:
    """The replacement as a reply has it; in fences, where its own lines would be taken for some."""
    for before, after in (("", ""), ("```\n", "\n```")):
        old, new = (f"{before}{part}{after}" for part in (edit.old, edit.text))
        text = f"Replace {edit.path}:\n{old}\nWith:\n{new}\nEnd"
        if parse_actions(text) == ((edit,), ()):
            return text
    raise ValueError(f"{edit.path}: a line of the replacement reads End or With:, which the grammar cannot say.")


PATCHERS = {"oracle": Gold}
