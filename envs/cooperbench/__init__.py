"""CooperBench: its tasks, and verdicts on them that submitted code cannot forge.

    from envs.cooperbench import Cache, Dataset, Evaluator
    from envs.repository.merge import MergePolicy

    dataset = Dataset("dataset")  # of the official package; nothing of it comes with this library
    evaluator = Evaluator(Cache("cache"))  # repositories and virtual environments, made once
    task = dataset.task("samuelcolvin_dirty_equals_task", 43)
    verdict = evaluator.evaluate(task, (1, 2), (patch_of_agent_1, patch_of_agent_2), MergePolicy.NAIVE)
    verdict.both_passed, [feature.fraction for feature in verdict.features]

| file | what |
|---|---|
| `dataset.py` | the layout: tasks, features, patches, pairs, subsets |
| `recipes.py` | which tasks run without docker, what they need, which features are broken |
| `venvs.py` | repositories and virtual environments, cached |
| `runner.py`, `pytest_child.py` | one isolated run of pytest, and what it claims |
| `mutants.py` | tests turned into tests that honest code must fail |
| `submission.py` | what of a patch is merged, and what of the merge counts |
| `grading.py` | claims made into a verdict on one feature |
| `evaluation.py` | the verdict on a pair of patches |
| `logs.py` | the official tree of logs, written and read |
| `official.py` | the official evaluator without docker, for comparison |
| `env.py`, `tasks.py` | the environment `CooperBench`, in which two seats play the pairs |
| `export.py` | a played episode as a log of that tree |

`envs.scripted.cooperbench` has a partner that plays the gold patch.
"""

from envs.cooperbench.dataset import BenchTask, Dataset, DatasetError, Feature, Pair
from envs.cooperbench.env import CooperBench
from envs.cooperbench.evaluation import Evaluator, PairVerdict, gradeable
from envs.cooperbench.export import pair_log, write_episodes
from envs.cooperbench.grading import FeatureVerdict, Suite
from envs.cooperbench.logs import AgentLog, LogError, Message, PairLog, read_logs, write_log
from envs.cooperbench.recipes import RECIPES, Recipe, Refused
from envs.cooperbench.runner import Isolation, IsolationError, RunStatus
from envs.cooperbench.venvs import Cache, PreparationError

__all__ = [
    "RECIPES",
    "AgentLog",
    "BenchTask",
    "Cache",
    "CooperBench",
    "Dataset",
    "DatasetError",
    "Evaluator",
    "Feature",
    "FeatureVerdict",
    "Isolation",
    "IsolationError",
    "LogError",
    "Message",
    "Pair",
    "PairLog",
    "PairVerdict",
    "PreparationError",
    "Recipe",
    "Refused",
    "RunStatus",
    "Suite",
    "gradeable",
    "pair_log",
    "read_logs",
    "write_episodes",
    "write_log",
]
