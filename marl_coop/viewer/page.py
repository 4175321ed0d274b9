"""The HTML file of some runs, and its JSON twin.

All data is compressed and in base64, so nothing that a model wrote is ever part of the HTML; the page's script unpacks
it and makes text nodes of it. The page loads nothing and may run no script but its own.
"""

import base64
import gzip
import hashlib
import json
from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import vl_convert
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from marl_coop import __version__
from marl_coop.viewer import charts
from marl_coop.viewer.episodes import KINDS, PHASES, detail, row
from marl_coop.viewer.overview import overview
from marl_coop.viewer.source import Run
from marl_coop.viewer.text import visible

Data = dict[str, Any]

FORMAT = 2  # of the twin; a change that breaks a reader makes it 2
CHUNK = 50  # episodes that the page unpacks at once
SCRIPTS = (
    "dom.js",
    "data.js",
    "charts.js",
    "overview.js",
    "list.js",
    "made.js",
    "tokens.js",
    "episode.js",
    "app.js",
)
_TEMPLATES = Environment(loader=PackageLoader("marl_coop.viewer"), autoescape=True, undefined=StrictUndefined)


def twin(runs: Sequence[Run]) -> Data:
    """All that the page shows: `runs`, each with its overview, and its `episodes`, each with its row and `detail`."""
    return {
        "format": FORMAT,
        "made_by": f"marl-coop {__version__}",
        "kinds": {kind: told._asdict() for kind, told in KINDS.items()},
        "phases": PHASES,
        "runs": [
            overview(run)
            | {"label": visible(label)}
            | {
                "episodes": [
                    row(one, stack := run.stack_of(one)) | {"detail": detail(one, stack)} for one in run.played
                ]
            }
            for run, label in zip(runs, labels([run.folder for run in runs]), strict=True)
        ],
    }


def labels(folders: Sequence[Path]) -> list[str]:
    """What each folder is called beside the others: the end of its path, as long as it takes to tell them apart.

    >>> labels([Path("/runs/a/seed-0"), Path("/runs/b/seed-0")])
    ['a/seed-0', 'b/seed-0']

    With its place in the list where it stands there twice.
    """
    paths = [folder.resolve() for folder in folders]
    names: list[str] = []
    for length in range(1, 1 + max((len(path.parts) for path in paths), default=0)):
        names = [str(Path(*path.parts[-length:])) for path in paths]
        if len({*names}) == len({*paths}):
            break
    return [name if names.count(name) == 1 else f"{name} ({i})" for i, name in enumerate(names, start=1)]


def page(data: Data) -> str:
    """The HTML of a `twin`."""
    runs = [{name: value for name, value in run.items() if name != "episodes"} for run in data["runs"]]
    played = [one for run in data["runs"] for one in run["episodes"]]
    packed = {
        "overview": {
            **{name: data[name] for name in ("made_by", "kinds", "phases")},
            "runs": [run | {"charts": {"results": charts.results(run), "terms": charts.terms(run)}} for run in runs],
            "charts": {"curves": charts.curves(runs), "learning": charts.learning(runs)},
            "chunk": CHUNK,
        },
        "rows": [
            [{name: value for name, value in one.items() if name != "detail"} for one in run["episodes"]]
            for run in data["runs"]
        ],
    }
    for start in range(0, len(played), CHUNK):
        packed[f"details-{start // CHUNK}"] = [one["detail"] for one in played[start : start + CHUNK]]
    scripts = [_vega(), "\n".join(map(_source, SCRIPTS))]
    return _TEMPLATES.get_template("page.html").render(
        title=", ".join(run["name"] for run in runs),
        style=Markup(_source("style.css")),
        scripts=[Markup(script) for script in scripts],
        hashes=[base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts],
        packed={name: _pack(value) for name, value in packed.items()},
    )


@cache
def _vega() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script."""
    return vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")


def _source(name: str) -> str:
    """The text of a file among the templates."""
    return (resources.files("marl_coop.viewer") / "templates" / name).read_text(encoding="utf-8")


def _pack(value: Any) -> str:
    packed = gzip.compress(json.dumps(value, separators=(",", ":"), allow_nan=False).encode(), compresslevel=6, mtime=0)
    return base64.b64encode(packed).decode()
