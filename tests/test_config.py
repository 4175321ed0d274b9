"""The schema, what merging does, and that every way to get it wrong ends in one clear line."""

import re
from pathlib import Path

import pytest
from pydantic_core import to_jsonable_python

import envs
import rewards
from marl_coop.config import schema
from marl_coop.config.errors import ConfigError
from marl_coop.config.layers import read_file
from marl_coop.config.schema import Config, load_config

ROOT = Path(__file__).parent.parent
CONFIGS = ROOT / "configs"
EXPERIMENTS = sorted(CONFIGS.glob("*.yaml"))
ABLATIONS = sorted((CONFIGS / "ablations").glob("*.yaml"))
PRESETS = sorted((CONFIGS / "presets").glob("*.yaml"))
PUBLISHED = read_file(CONFIGS / "presets" / "balanced.yaml")["rewards"]  # in `TERMS`, where a user may add more


def write(folder: Path, text: str, name: str = "mine.yaml") -> Path:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def leaves(tree: dict, prefix: tuple = ()) -> dict:
    """Every value by the keys that lead to it."""
    found = {}
    for key, value in tree.items():
        found |= leaves(value, (*prefix, key)) if isinstance(value, dict) and value else {(*prefix, key): value}
    return found


@pytest.mark.parametrize("file", EXPERIMENTS + ABLATIONS + PRESETS, ids=lambda file: str(file.relative_to(CONFIGS)))
def test_every_file_loads(file):
    assert isinstance(load_config([file]), Config)


@pytest.mark.parametrize("file", sorted((CONFIGS / "accelerate").glob("*.yaml")), ids=lambda file: file.name)
def test_accelerate_reads_its_files(file):
    from accelerate.commands.config.config_args import load_config_from_file

    assert load_config_from_file(str(file)).num_processes >= 2


@pytest.mark.parametrize("file", ABLATIONS, ids=lambda file: file.stem)
def test_an_ablation_changes_one_key(file, tmp_path):
    on = write(tmp_path, "".join(["rewards:\n", *(f"  {term.name}: {{weight: 0.5}}\n" for term in rewards.TERMS)]))
    base = leaves(load_config([CONFIGS / "base.yaml", on]).model_dump())
    ablated = leaves(load_config([CONFIGS / "base.yaml", on, file]).model_dump())
    term = file.stem.removeprefix("no_")
    assert base.keys() == ablated.keys()
    assert {keys for keys in base if base[keys] != ablated[keys]} == {("rewards", term, "weight")}
    assert ablated["rewards", term, "weight"] == 0


def test_every_term_has_an_ablation():
    assert {f"no_{name}" for name in PUBLISHED} == {file.stem for file in ABLATIONS}


@pytest.mark.parametrize("file", PRESETS, ids=lambda file: file.stem)
def test_a_preset_weighs_every_term_and_touches_nothing_else(file, tmp_path):
    on = write(tmp_path, "".join(["rewards:\n", *(f"  {name}: {{weight: 7}}\n" for name in PUBLISHED)]))
    before, after = (load_config([on, *files]).model_dump() for files in ([], [file]))
    assert all(fields["weight"] != 7 for fields in after["rewards"].values())
    assert before | {"rewards": None} == after | {"rewards": None}


def weighed(file: Path) -> dict[str, float]:
    """The terms that a file trains on."""
    section = load_config([file]).rewards
    return {name: fields["weight"] for name, fields in section.items() if fields["weight"]}


def test_presets_train_on_what_they_say():
    folder = CONFIGS / "presets"
    assert {file.stem for file in PRESETS} == {"balanced", "task_only", "naive_bonus", "approval"}
    assert load_config([folder / "balanced.yaml"]).rewards == Config().rewards
    assert weighed(folder / "task_only.yaml") == {"task_success": 1.0}
    assert weighed(folder / "approval.yaml") == {"approval": 1.0}
    naive = {"naive_deference": 1.0, "naive_capitulation": 1.0, "naive_disagreement": 0.5}
    assert weighed(folder / "naive_bonus.yaml") == {"task_success": 1.0, "communication": 0.1} | naive


class Modesty(rewards.RewardTerm):
    """A term that a user adds."""

    weight: rewards.base.Weight = 0.1

    def __call__(self, episode, agent):
        return [0.0] * len(episode.turns_of(agent))


@pytest.mark.parametrize("preset", ["task_only", "naive_bonus", "approval"])
def test_a_term_of_ones_own_weighs_nothing_in_a_preset_that_does_not_name_it(preset, tmp_path, monkeypatch):
    mine = "test_config:Modesty"
    monkeypatch.setitem(schema.DEFAULTS, "rewards", schema.DEFAULTS["rewards"] | {mine: {}})  # as if it were in TERMS
    file = CONFIGS / "presets" / f"{preset}.yaml"
    own = write(tmp_path, f"rewards: {{'{mine}': {{weight: {{schedule: linear, end: 1, updates: 3}}}}}}\n")
    assert load_config([own]).rewards[mine]["weight"]["end"] == 1
    for files in ([file], [own, file]):
        assert load_config(files).rewards[mine]["weight"] == 0
    assert load_config([file], [f"rewards[{mine}].weight=0.3"]).rewards[mine]["weight"] == 0.3
    assert load_config([CONFIGS / "presets" / "balanced.yaml"]).rewards[mine]["weight"] == 0.1


def test_base_writes_down_the_defaults():
    written, default = load_config([CONFIGS / "base.yaml"]), Config()
    assert written.model_dump() == default.model_dump()
    (environment,) = [known for known in envs.ENVIRONMENTS if known.__name__ == written.env["name"]]
    in_code = to_jsonable_python(environment().config)
    del in_code["render_mode"]  # for people who watch, not for training
    assert read_file(CONFIGS / "base.yaml")["env"] == {"name": environment.__name__, "curriculum": None} | in_code


def test_later_files_and_then_overrides_win(tmp_path):
    first = write(tmp_path, "seed: 1\nlora: {r: 4, alpha: 8}\n", "first.yaml")
    second = write(tmp_path, "lora: {r: 2}\n", "second.yaml")
    config = load_config([first, second], ["seed=3"])
    assert (config.seed, config.lora.r, config.lora.alpha) == (3, 2, 8)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5),
        ("3", 3),
        ("true", True),
        ("null", None),
        ("[1, 2]", [1, 2]),
        ("cosine", "cosine"),
        ("'3'", "3"),
        ("runs/a #1", "runs/a #1"),  # a shell has dealt with comments already
        ("#1", "#1"),
        ("[a#1, 'b #2']", ["a#1", "b #2"]),
    ],
)
def test_overrides_are_typed_as_in_yaml(text, value):
    loaded = load_config([], [f"model.chat_template_kwargs.key={text}"]).model.chat_template_kwargs["key"]
    assert loaded == value
    assert type(loaded) is type(value)


def test_references_are_resolved(tmp_path):
    config = load_config([write(tmp_path, "lora: {r: 4, alpha: '${lora.r}'}\n")])
    assert config.lora.alpha == 4


def test_yaml_round_trip(tmp_path):
    config = load_config([CONFIGS / "quickstart.yaml"], ["training.learning_rate=1e-5", "training.run_name='1e-5'"])
    assert load_config([write(tmp_path, config.to_yaml())]) == config


def test_an_environment_gets_what_its_annotations_make_of_yaml(tmp_path, monkeypatch):
    write(
        tmp_path,
        "from enum import Enum\nfrom pathlib import Path\n"
        "from envs.design_review import DesignReview, DesignReviewConfig\n"
        "class Colour(Enum):\n    RED = 'red'\n"
        "class TypedConfig(DesignReviewConfig):\n"
        "    folder: Path\n    colour: Colour\n    pair: tuple[int, int]\n    names: set[str]\n"
        "class Typed(DesignReview):\n"
        "    Config = TypedConfig\n",
        "typed_lab.py",
    )
    monkeypatch.syspath_prepend(tmp_path)
    file = write(tmp_path, "env: {name: 'typed_lab:Typed', folder: a/b, colour: red, pair: [1, 2], names: [x, x]}")
    import typed_lab

    for env in (load_config([file]).make_env(), load_config([file], ["evaluation.env.rounds=2"]).make_evaluation_env()):
        got = env.config
        assert (got.folder, got.colour, got.pair, got.names) == (Path("a/b"), typed_lab.Colour.RED, (1, 2), {"x"})
    with pytest.raises(ConfigError, match="env.foldr: unknown key; did you mean 'folder'"):
        load_config([write(tmp_path, "env: {name: 'typed_lab:Typed', foldr: a/b}", "slip.yaml")])
    with pytest.raises(ConfigError, match="env.curriculum.windw: unknown key; did you mean 'window'"):
        load_config([], ["env.curriculum={windw: 3}"])


@pytest.mark.parametrize("file", ["base.yaml", "quickstart.yaml"])
@pytest.mark.parametrize("environment", envs.ENVIRONMENTS)
def test_another_environment_is_one_key(file, environment):
    """What belongs to the environment of the file does not stand in the way."""
    config = load_config([CONFIGS / file], [f"env.name={environment.__name__}"])
    assert type(config.make_env()) is environment
    assert load_config([CONFIGS / file], [f"evaluation.env.name={environment.__name__}"]).make_evaluation_env()


def test_another_environment_keeps_what_all_of_them_have():
    config = load_config([CONFIGS / "quickstart.yaml"], ["env.name=DesignReview", "env.curriculum={}"])
    assert (config.env["scaffold"], config.env["cells"]["one_right"]) == (True, 0.8)
    assert (config.env["families"], "test_timeout_s" in config.env) == ("train", False)
    assert load_config([CONFIGS / "quickstart.yaml"], ["env.name=PairedFunctions"]).env["families"][0] == "offset"


@pytest.mark.parametrize("environment", envs.ENVIRONMENTS)
def test_what_another_environment_does_not_share_is_gone_from_its_evaluation_too(environment, tmp_path):
    """But of what names an environment of its own, all stays."""
    name = environment.__name__
    file = write(tmp_path, "evaluation: {env: {families: held_out, rounds: 2, test_timeout_s: 3.0}}")
    config = load_config([CONFIGS / "quickstart.yaml", file], [f"env.name={name}"])
    stays = ["families", "rounds", "test_timeout_s"] if name == "PairedFunctions" else ["rounds"]
    assert list(config.evaluation.env) == stays and config.make_evaluation_env().config.rounds == 2
    named = write(tmp_path, "evaluation: {env: {name: PairedFunctions, families: held_out}}", "named.yaml")
    assert load_config([named], [f"env.name={name}"]).evaluation.env == {
        "name": "PairedFunctions",
        "families": "held_out",
    }


def test_the_name_of_an_environment_comes_before_what_is_said_of_it():
    assert next(iter(load_config([CONFIGS / "quickstart.yaml"], ["env.name=Handover"]).env)) == "name"


def test_all_fields_of_an_environment_are_in_the_resolved_configuration():
    assert load_config([], ["env.name=Handover"]).env == {"name": "Handover", "curriculum": None} | to_jsonable_python(
        envs.Handover().config
    )


def test_all_fields_of_a_term_are_in_the_resolved_configuration():
    section = load_config([], ["rewards.capitulation.weight=0.5"]).rewards["capitulation"]
    assert section == {"weight": 0.5, "loss_aversion": 1.5}


def test_a_term_by_path_and_its_key_in_brackets(tmp_path, monkeypatch):
    write(
        tmp_path,
        "from rewards.base import RewardTerm, at_last_turn\n"
        "class LabTerm(RewardTerm):\n"
        "    weight: float = 1.0\n"
        "    def __call__(self, episode, agent): return at_last_turn(episode, agent, 0.0)\n",
        "lab_terms.py",
    )
    monkeypatch.syspath_prepend(tmp_path)
    config = load_config([], ["rewards[lab_terms:LabTerm].weight=0.5"])
    assert config.rewards["lab_terms:LabTerm"] == {"weight": 0.5}


def test_a_seat_that_a_later_file_fills_takes_nobody_from_before(tmp_path):
    first = write(tmp_path, "policies: {agent_1: {agent_1: 0.5, base: 0.5}}")
    config = load_config([CONFIGS / "base.yaml", first], ["policies.agent_1={agent_1: 1, 'scripted:echo': 3}"])
    assert config.policies == {"agent_0": "agent_0", "agent_1": {"agent_1": 1.0, "scripted:echo": 3.0}}
    assert load_config([CONFIGS / "base.yaml", first], ["policies.agent_1=base"]).policies["agent_1"] == "base"


def test_a_configuration_is_called_by_what_was_laid_over_it(tmp_path):
    ablation, mine = CONFIGS / "ablations" / "no_consensus.yaml", write(tmp_path, "name: mine", "own.yaml")
    assert load_config([CONFIGS / "quickstart.yaml"], ["seed=3", "output_dir=x"]).title == "quickstart"
    title = load_config([CONFIGS / "quickstart.yaml", ablation], ["lora.r=2"]).title
    assert title == "quickstart+no_consensus+r=2"
    assert load_config([CONFIGS / "quickstart.yaml", ablation, mine]).title == "mine"
    assert load_config([CONFIGS / "quickstart.yaml"], ["name=own", "lora.r=2"]).title == "own"


def test_a_title_is_short_and_plain_and_another_experiment_has_another():
    many = [f"rewards.{term.name}.weight=0" for term in rewards.TERMS]
    said = [
        many,
        many[1:],
        [*many[:-1], f"{many[-1]}.5"],
        ["policies.agent_1=scripted:persuader"],
        ["policies.agent_1={agent_1: 0.5, base: 0.5}"],
        ["policies.agent_1={agent_1: 0.5, base: 0.6}"],
        ["policies.agent_1=http://here:8000/v1#a"],
        ["policies.agent_1=http://there:8000/v1#a"],
        ["model.name_or_path=me/model"],
        ["model.name_or_path=you/model"],
        ["env.families=[offset]"],
        ["env.families=[offset, scale]"],
        ["training.learning_rate=1e-4"],
        ["warmup.learning_rate=1e-4"],
        ["env.acts=true", "env.rounds=2"],
        ["env.name=DesignReview"],
        ["rewards.deference.alpha=2"],
        ["lora.alpha=2"],
    ]
    titles = [load_config([CONFIGS / "quickstart.yaml"], overrides).title for overrides in said]
    assert len({*titles}) == len(titles)
    assert all(re.fullmatch(r"[A-Za-z0-9_.+=-]{1,80}", title) for title in titles)
    assert titles[14:16] == ["quickstart+acts=true+rounds=2", "quickstart+env=DesignReview"]
    assert re.fullmatch(r"quickstart\+agent_1=scripted-persuader-[0-9a-f]{6}", titles[3])
    assert re.fullmatch(r"quickstart\+task_success=0\+deference=0\+.*\+\d+_more-[0-9a-f]{6}", titles[0])
