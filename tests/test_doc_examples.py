"""The examples of the documentation run as they stand, in one fresh interpreter for each file, and without torch."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from marl_coop.config.schema import load_config

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(("file", "blocks"), [("docs/environments.md", 4), ("README.md", 1)])
def test_examples_of_play_run_without_torch(file, blocks):
    code = re.findall(r"^```python\n(.*?)^```", (ROOT / file).read_text(), re.DOTALL | re.MULTILINE)
    if file == "README.md":  # the others are parts of a program
        code = [block for block in code if block.startswith("import envs")]
    assert len(code) == blocks
    check = "import sys; assert not {'torch', 'transformers'} & set(sys.modules)"
    program = "\n".join([*code, check])
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "-- outcome" in result.stdout and "cannot be read" not in result.stdout


@pytest.mark.parametrize("below", ["base.yaml", "quickstart.yaml"])
def test_the_schedules_of_the_first_page_go_with_what_they_are_laid_over(below, tmp_path):
    (block,) = re.findall(r"^```yaml\n(rewards:.*?)^```", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    file = tmp_path / "mine.yaml"
    file.write_text(block)
    stack = load_config([ROOT / "configs" / below, file]).reward_stack
    assert set(stack.scheduled) == {"capitulation", "consensus", "communication"}


def test_every_line_of_the_table_of_attacks_names_tests_that_are_there():
    page = (ROOT / "docs/sandbox.md").read_text()
    table = page[page.index("| it tries to |") :].split("\n\n")[0].splitlines()[2:]
    tests = "".join(file.read_text() for file in (ROOT / "tests").glob("test_*.py"))
    named = [re.findall(r"`(?:tests/)?(test_\w+)", line) for line in table]
    assert len(named) > 12 and all(named)
    missing = [name for line in named for name in line if f"def {name}(" not in tests]
    assert [name for name in missing if not (ROOT / "tests" / f"{name}.py").is_file()] == []
