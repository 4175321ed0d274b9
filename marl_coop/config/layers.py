"""YAML files and overrides as layers of plain data, and the merging of them."""

import io
import json
import re
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, TypeVar

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import KeyValidationError, OmegaConfBaseException
from pydantic import BaseModel, ValidationError

from envs.core.lookup import alike
from marl_coop.config.builders import laid_over, shared_keys
from marl_coop.config.errors import ConfigError, Keys, contains, dotted, explain, not_keys
from marl_coop.credentials import keys_here

COMMAND_LINE = "command line"
UNFILLED = "???"  # what a file leaves to later ones
OF_OTHERS = {  # a key that no experiment has -> what a file with it is
    "arms": "an ablation: marl-coop ablate {} runs it",
    "conditions": "a battery: marl-coop eval RUN --battery {} plays it",
    "compute_environment": "a launch file: accelerate launch --config_file {} train.py --config MINE starts one",
    "parameters": "a sweep: wandb sweep {} begins it",
    "currency": "prices: marl-coop ledger RUN --prices {} reckons by them",
}
OTHERS = "*"  # in the section `rewards`: every term that a file does not name

Layer = tuple[str, dict]  # (source, what it says)
Schema = TypeVar("Schema", bound=BaseModel)


def merge(defaults: dict, layers: Sequence[Layer]) -> dict:
    """The defaults with the layers put over them, the last on top, and `${references}` resolved.

    Raises:
        ConfigError: a list meets keys, a reference leads nowhere, or a ??? was left to fill.
    """
    merged = OmegaConf.create(defaults)
    unfilled: dict[Keys, str] = {}  # by ???, and in which file
    try:
        for source, content in layers:
            said = leaves(content)
            unfilled = {keys: file for keys, file in unfilled.items() if keys not in said}
            unfilled |= {keys: source for keys, value in said.items() if value == UNFILLED}
            below = _plain(merged)
            _check_sections(defaults, content, source)
            content = _with_other_terms(below, content, source)
            if (clash := _clash(below, content)) is not None:
                raise ConfigError(
                    "has a list where an earlier file or a default has keys, or the reverse", clash, source
                )
            kept = deepcopy(below)
            _clear_other_schedules(kept, content)
            _clear_other_environment(kept, content)
            _clear_mixes(kept.get("policies"), content.get("policies"))
            if kept != below:  # seldom, and to make it anew is what takes the time
                merged = OmegaConf.create(kept)
            merged.merge_with(content)
        for keys, source in unfilled.items():
            raise ConfigError(f"{UNFILLED} was left to fill: give it a value in a later file or override", keys, source)
        return _plain(merged, finished=True)
    except OmegaConfBaseException as error:
        keys = tuple(re.split(r"[.\[]", str(error.full_key or "").replace("]", "")))  # of a list: `command[7]`
        raise ConfigError(str(error).splitlines()[0], keys, source_of(keys, layers)) from error


def read_file(file: Path) -> dict:
    """One YAML file as plain data; `${references}` stay as they are."""
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(f"no such file; {_existing_like(file)}", source=str(file)) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read as text: {error}", source=str(file)) from error
    return _yaml(lambda: OmegaConf.load(io.StringIO(text)), source=str(file))


def read_configuration(file: Path) -> dict:
    """`read_file` of what must be a run's configuration, and not the file of another command."""
    content = read_file(file)
    for key, what in OF_OTHERS.items():
        if key in content:
            raise ConfigError(f"no configuration of a run, but {what.format(file)}", source=str(file))
    return content


def read_as(file: Path, schema: type[Schema]) -> Schema:
    """One YAML file that stands alone, judged by its schema.

    Raises:
        ConfigError: the file is missing or not YAML, or a key or value does not fit the schema.
    """
    content = read_file(file)
    try:
        return schema.model_validate(content)
    except ValidationError as error:
        found = explain(error, schema, content)
        raise ConfigError(found.problem, found.keys, str(file)) from error


def parse_override(override: str) -> dict:
    """One `dotted.key=value`, the value typed as in YAML; where a comment would begin in a file, it goes on as text."""
    key, equals, value = override.partition("=")
    if not (key.strip() and equals):
        raise ConfigError(f"{override!r} is not KEY=VALUE, such as training.learning_rate=1e-5", source=COMMAND_LINE)
    if re.match(r"""(?!\s*["'\[{]).*?(^|\s)#""", value):
        override = f"{key}={json.dumps(value, ensure_ascii=False)}"
    return _yaml(lambda: OmegaConf.from_dotlist([override]), source=f"{COMMAND_LINE}: {override!r}")


def override_of(key: str, text: str) -> str:
    """The override that gives a key this text, whatever YAML and references would make of the bare words.

    >>> override_of("name", "mine"), override_of("name", "on"), override_of("output_dir", "runs/${x}")
    ('name=mine', 'name="on"', 'output_dir=runs/\\\\${x}')
    """
    text = escaped(text)
    try:
        bare = parse_override(f"{key}={text}") == {key: text}
    except ConfigError:
        bare = False
    return f"{key}={text if bare else json.dumps(text, ensure_ascii=False)}"


def escaped(value: Any) -> Any:
    """A value in whose texts a `${` is one, and begins no reference."""
    if isinstance(value, str):
        return re.sub(r"(\\*)\$\{", r"\1\1\\${", value)
    if isinstance(value, dict):
        return {key: escaped(one) for key, one in value.items()}
    return [*map(escaped, value)] if isinstance(value, list | tuple) else value


def _yaml(load: Callable[[], Any], source: str) -> dict:
    try:
        content = load()
    except yaml.MarkedYAMLError as error:  # duplicate keys are among them
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise ConfigError(f"not valid YAML: {line}{error.problem}", source=source) from error
    except KeyValidationError as error:
        problem = f"{str(error).splitlines()[0]}: put the key in quotes"
        raise ConfigError(problem, tuple((error.full_key or "").split(".")), source) from error
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"not valid YAML: {error}", source=source) from error
    except OSError as error:  # how OmegaConf says that the text is one number
        raise ConfigError("must hold `key: value` lines", source=source) from error
    if not isinstance(content, DictConfig):
        raise ConfigError("must hold `key: value` lines, not a list", source=source)
    return _plain(content)


def _plain(content: Any, finished: bool = False) -> dict:
    """What OmegaConf holds as a dict; `finished` resolves references and refuses what was left to fill."""
    plain = OmegaConf.to_container(content, resolve=finished, throw_on_missing=finished)
    assert isinstance(plain, dict)  # of keys, as they are
    return plain


def _existing_like(file: Path) -> str:
    folder = file.parent
    if not folder.is_dir():
        return f"there is no folder {str(folder)!r}"
    known = sorted(path.name for path in folder.glob("[!.]*") if path.suffix in (".yaml", ".yml"))
    if not known:
        return f"{str(folder)!r} has no YAML file"
    near = alike(file.name, known)
    return f"{str(folder)!r} has {', '.join(known)}" if near is None else f"did you mean {str(folder / near)!r}?"


def _clash(below: Any, above: Any, keys: Keys = ()) -> Keys | None:
    """Where one layer has a list and the other has keys."""
    if isinstance(below, dict) and isinstance(above, dict):
        clashes = (_clash(below[key], above[key], (*keys, key)) for key in above if key in below)
        return next((clash for clash in clashes if clash is not None), None)
    return keys if {type(below), type(above)} == {dict, list} else None


def _check_sections(defaults: dict, content: dict, source: str) -> None:
    """Refuse a layer that has no keys in the place of a section or of a reward term: what is empty, or one value, would
    take away all that earlier files say there as soon as a later layer says a word of it.

    Raises:
        ConfigError: it has.
    """
    terms = content.get("rewards")
    places: dict[Keys, Any] = {(key,): value for key, value in content.items() if isinstance(defaults.get(key), dict)}
    places |= {("rewards", term): value for term, value in terms.items()} if isinstance(terms, dict) else {}
    for keys, value in places.items():
        if not isinstance(value, dict | list) and not (isinstance(value, str) and value.startswith("${")):
            raise not_keys(value, keys, source)


def _with_other_terms(below: dict, above: dict, source: str) -> dict:
    """The layer above with what its `rewards` say of "*" said of every term below that they do not name."""
    terms = above.get("rewards")
    if not isinstance(terms, dict) or OTHERS not in terms:
        return above
    named = {name: fields for name, fields in terms.items() if name != OTHERS}
    if not isinstance(terms[OTHERS], dict):
        raise not_keys(terms[OTHERS], ("rewards", OTHERS), source)
    return above | {"rewards": dict.fromkeys(below["rewards"].keys() - named.keys(), terms[OTHERS]) | named}


def _clear_other_schedules(below: dict, above: dict) -> None:
    """Empties what a layer below says of a schedule where the one above names another: its keys mean nothing there."""
    for key, value in above.items():
        lower = below.get(key)
        if isinstance(lower, dict) and isinstance(value, dict):
            if "schedule" in lower and value.get("schedule", lower["schedule"]) != lower["schedule"]:
                lower.clear()
            _clear_other_schedules(lower, value)


def _clear_other_environment(below: dict, above: dict) -> None:
    """Empties `env` and `evaluation.env` of what belongs to one environment where the layer above names another."""
    lower, upper = below.get("env"), above.get("env")
    if not (isinstance(lower, dict) and isinstance(upper, dict)):
        return
    before: Any = lower.get("name")
    after = upper.get("name", before)
    below["env"] = laid_over(lower, {"name": after})
    evaluation = below.get("evaluation")
    if before != after and isinstance(evaluation, dict):
        changes = evaluation.get("env")
        if isinstance(changes, dict) and "name" not in changes:
            shared = shared_keys(before, after)
            evaluation["env"] = {key: value for key, value in changes.items() if key in shared}


def _clear_mixes(below: Any, above: Any) -> None:
    """Empties the seats that the layer above gives to somebody: a mix is one value and takes nobody from below."""
    if isinstance(below, dict) and isinstance(above, dict):
        below |= dict.fromkeys(above.keys() & below.keys())


def leaves(content: dict, prefix: Keys = ()) -> dict[Keys, Any]:
    """Every value by the keys that lead to it; keys that lead to nothing have an empty dict.

    >>> leaves({"lora": {"r": 8}, "training": {}})
    {('lora', 'r'): 8, ('training',): {}}
    """
    found: dict[Keys, Any] = {}
    for key, value in content.items():
        found |= leaves(value, (*prefix, key)) if isinstance(value, dict) and value else {(*prefix, key): value}
    return found


def refuse_secrets(values: dict) -> None:
    """Check that no key or value has what a variable of the environment keeps secret.

    Raises:
        ConfigError: one has.
    """
    secrets = keys_here()
    for keys, value in leaves(values).items():
        for depth, text in enumerate((*map(str, keys), str(value))):
            if variable := next((name for name, secret in secrets.items() if secret in text), None):
                problem = f"it has what ${variable} has, and the run's records would show it"
                raise ConfigError(f"{problem}: read it where it is used", keys[:depth])


def places_of(key: Any, content: dict) -> list[str]:
    """Where there is a key of this name; none where it is in many places.

    >>> places_of("r", {"lora": {"r": 8, "alpha": 16}})
    ['lora.r']
    """
    keys = (found[:depth] for found in leaves(content) for depth in range(1, len(found) + 1) if found[depth - 1] == key)
    places = sorted({dotted(found) for found in keys})
    return places if len(places) <= 3 else []


def source_of(keys: Keys, layers: Sequence[Layer]) -> str | None:
    """The last layer that says something about a value or, if none does, about what encloses it."""
    for depth in range(len(keys), 0, -1):
        for source, content in reversed(layers):
            if contains(content, keys[:depth]):
                return source
    return None
