"""What is known of CooperBench's 30 tasks: which run without docker, what they need, and which features are broken.

Measured on Python 3.11 and two cores, without docker, with the dataset of the official package 0.0.14. A defect is
tied to the content of the hidden tests that have it, so a dataset in which it is mended is not refused.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from envs.cooperbench.dataset import BenchTask


class Refused(ValueError):
    """A task or feature for which no reward may be paid; the message has the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What a task's virtual environment needs beside pytest.

    `tier`: 1 is small and fully gradeable, 2 takes 0.6 to 2 s a suite, 3 takes 3 to 9 s. `built`: a requirement that
    has the package built, where building it needs more than Python; the base commit itself where empty. `bundles`:
    requirements installed without their own. `lazy`: modules that are loaded where something of them is first used, as
    importing them takes longer than the tests, which hardly use them. `environ`: variables of a run, `{site}` for the
    site-packages folder.
    """

    tier: int
    requires: tuple[str, ...] = ()
    built: str = ""
    bundles: tuple[str, ...] = ()
    lazy: tuple[str, ...] = ()
    environ: Mapping[str, str] = field(default_factory=dict)


_PILLOW = Recipe(tier=2, requires=("numpy",))  # needs libjpeg and zlib headers
_JINJA = Recipe(tier=2, requires=("markupsafe", "trio"))

RECIPES: Mapping[str, Recipe] = {
    "samuelcolvin_dirty_equals_task/43": Recipe(tier=1, requires=("pytz", "pydantic")),
    "dottxt_ai_outlines_task/1655": Recipe(
        tier=1,
        requires=(
            *(
                "interegular",
                "jinja2",
                "lark",
                "nest_asyncio",
                "cloudpickle",
                "diskcache",
                "pydantic>=2",
                "referencing",
            ),
            *("jsonschema", "requests", "pillow", "tqdm", "typing_extensions", "iso3166", "airportsdata", "genson"),
            *("outlines_core==0.1.26", "torch", "numpy<2.2", "transformers<=4.52.1", "pytest-asyncio"),
        ),
        lazy=("torch",),  # 4 s of processor time in each run
    ),
    "pallets_click_task/2068": Recipe(tier=2),
    "pallets_click_task/2800": Recipe(tier=2),
    "pallets_click_task/2956": Recipe(tier=2),
    "pallets_jinja_task/1465": _JINJA,
    "pallets_jinja_task/1559": _JINJA,
    "pallets_jinja_task/1621": _JINJA,
    "pillow_task/25": _PILLOW,
    "pillow_task/68": _PILLOW,
    "pillow_task/290": _PILLOW,
    "openai_tiktoken_task/0": Recipe(
        tier=2,
        requires=("regex", "requests", "hypothesis"),
        built="tiktoken==0.9.0",
        bundles=("litellm==1.77.1",),  # carries the table that tiktoken would download
        environ={"TIKTOKEN_CACHE_DIR": "{site}/litellm/litellm_core_utils/tokenizers"},
    ),
}

_NO_RECIPE: Mapping[str, str] = {
    "typst_task": "it needs Rust crates",
    "go_chi_task": "it is written in Go, and only pytest's results can be proved here",
    "react_hook_form_task": "it is written in TypeScript, and only pytest's results can be proved here",
    "dottxt_ai_outlines_task/1706": "its tests download two models",
    "llama_index_task/17070": "its tests were never run without docker",
}

_ON_BASE = "its hidden tests pass on the untouched base"
_OTHERS = "its hidden tests hold the expectations of another feature, or do not apply"

# (task, feature, first 16 hex digits of the SHA-256 of tests.patch) -> reason
DEFECTS: Mapping[tuple[str, int, str], str] = {
    ("pallets_jinja_task/1559", 3, "97505bff1cabc52e"): _ON_BASE,
    ("pallets_jinja_task/1621", 5, "c3386b56ca1ba0e1"): _ON_BASE,
    ("pillow_task/290", 4, "67062577a31a68de"): "its hidden tests are noise: the differences they sum wrap in a byte",
    ("dspy_task/8563", 2, "633622668372dc60"): _OTHERS,
    ("dspy_task/8563", 3, "f29bc752ee6fe6f7"): _OTHERS,
    ("dspy_task/8563", 4, "8e718b0c09a6f912"): _OTHERS,
    ("dspy_task/8563", 5, "cdb034aec19ac7a9"): _OTHERS,
    ("dspy_task/8563", 6, "5dc340ece45a6204"): _OTHERS,
}


def recipe(task: BenchTask, recipes: Mapping[str, Recipe] = RECIPES) -> Recipe:
    """How to run a task without docker, from recipes by `BenchTask.key`.

    Raises:
        Refused: it does not run without docker; the message says why.
    """
    if task.key in recipes:
        return recipes[task.key]
    why = _NO_RECIPE.get(task.key) or _NO_RECIPE.get(task.repo) or "there is no recipe for it"
    raise Refused(f"{task.key} does not run without docker: {why}.")


def known_defect(task: BenchTask, feature: int) -> str:
    """Why a feature's hidden tests are known to be worthless; "" where nothing is known against them."""
    tests = task.features[feature].tests.encode("utf-8", "surrogateescape")
    return DEFECTS.get((task.key, feature, hashlib.sha256(tests).hexdigest()[:16]), "")
