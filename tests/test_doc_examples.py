"""The examples of the documentation run as they stand, in one fresh interpreter for each file, and without torch."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

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
