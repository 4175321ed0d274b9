"""Configurations that are refused: one line with the value, the file and the nearest thing that exists."""

import re
from pathlib import Path

import pytest
from pydantic import ValidationError
from test_config import write

from envs.core.lookup import nearest
from marl_coop.config.errors import ConfigError, dotted
from marl_coop.config.schema import Config, load_config

CONFIGS = Path(__file__).parents[1] / "configs"


def test_what_is_said_of_all_other_terms_must_be_keys(tmp_path):
    file = write(tmp_path, 'rewards: {"*": 0}\n')
    with pytest.raises(ConfigError, match=r"rewards\.\*: 0 is refused: input should be keys"):
        load_config([file])


@pytest.mark.parametrize(
    ("file", "what"),
    [
        ("studies/terms.yaml", "an ablation: marl-coop ablate .*terms.yaml runs it"),
        ("batteries/quick.yaml", "a battery: marl-coop eval RUN --battery .*quick.yaml plays it"),
        ("accelerate/ddp.yaml", "a launch file: accelerate launch --config_file .*ddp.yaml train.py --config MINE"),
        ("sweeps/learning_rate.yaml", "a sweep: wandb sweep .*learning_rate.yaml begins it"),
        ("prices/example.yaml", "prices: marl-coop ledger RUN --prices .*example.yaml reckons by them"),
    ],
)
def test_a_file_of_another_command_is_told_by_what_runs_it(file, what):
    with pytest.raises(ConfigError, match=f"{file}: no configuration of a run, but {what}"):
        load_config([CONFIGS / "quickstart.yaml", CONFIGS / file])


@pytest.mark.parametrize(
    ("text", "later", "place"),
    [
        ("training:\n", "training.num_updates=20", "training: None"),
        ("training: 3", "training.num_updates=20", "training: 3"),
        ("rewards:\n", "rewards.consensus.weight=0.2", "rewards: None"),
        ("rewards: false", "rewards.deference.weight=1", "rewards: False"),
        ("rewards: {communication: 0.3}", "rewards.communication.free_tokens=3", "rewards.communication: 0.3"),
        ("env:\n", "env.rounds=2", "env: None"),
    ],
)
def test_an_empty_section_does_not_take_away_what_earlier_files_say_there(tmp_path, text, later, place):
    with pytest.raises(ConfigError, match=rf"mine.yaml: {re.escape(place)} is refused: input should be keys"):
        load_config([CONFIGS / "quickstart.yaml", write(tmp_path, text)], [later])


def test_a_configuration_cannot_be_changed():
    with pytest.raises(ValidationError):
        Config().seed = 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sed: 1", "mine.yaml: sed: unknown key; did you mean 'seed'?"),
        ("lora: {rr: 1}", "mine.yaml: lora.rr: unknown key; did you mean 'r'?"),
        ("lora: {r: eight}", "mine.yaml: lora.r: 'eight' is refused: input should be a valid integer"),
        ("lora: {r: true}", "mine.yaml: lora.r: True is refused: input should be a valid integer"),
        ("lora: {r: 0}", "mine.yaml: lora.r: 0 is refused: input should be greater than or equal to 1"),
        ("lora: 3", "mine.yaml: lora: 3 is refused: input should be keys"),
        (
            "rewards: {consensus: 0}",
            "consensus: 0 is refused: input should be keys; the weight is rewards.consensus.weight",
        ),
        ("lora: {upper_layers: .nan}", "mine.yaml: lora.upper_layers: nan is refused"),
        (
            "model: {dtype: float16}",
            "mine.yaml: model.dtype: 'float16' is refused: input should be 'fastest', 'bfloat16'",
        ),
        ("lora: {target_modules: [q_proj, 3]}", "mine.yaml: lora.target_modules.1: 3 is refused"),
        ("policies: [agent_0, agent_1]", "mine.yaml: policies: has a list where an earlier file"),
        ("lora: {target_modules: {a: b}}", "mine.yaml: lora.target_modules: has a list where an earlier file"),
        ("name: a/b", "mine.yaml: name: 'a/b' is refused: a name has letters, digits"),
        ("policies: {agent_2: extra}", "mine.yaml: policies.agent_2: the environment has no such seat"),
        ("policies: {agent_1: ../x}", "mine.yaml: policies.agent_1: '../x' is refused"),
        ("policies: {agent_1: {agent_1: 0}}", "mine.yaml: policies.agent_1: the weights of a mix are (0.0,)"),
        ("policies: {agent_1: {}}", "mine.yaml: policies.agent_1: a mix of 0 players"),
        ("policies: {agent_1: scripted:persuade}", "There is no scripted partner 'persuade'. Did you mean 'persuader'"),
        (
            "policies: {agent_1: frozen:runs/x}",
            "policies.agent_1: 'frozen:runs/x': 'runs/x' is not the folder",
        ),
        ("policies: {agent_1: 'http://host/v1'}", "policies.agent_1: 'http://host/v1' must end with # and the name"),
        ("policies: {agent_0: base, agent_1: scripted:echo}", "policies: no seat has an adapter that is trained"),
        ("rewards: {deference: {weight: -1}}", "mine.yaml: rewards.deference.weight: -1 is refused: input should be"),
        ("rewards: {deference: {wight: 1}}", "rewards.deference.wight: unknown key; did you mean 'weight'?"),
        ("rewards: {deference: 1}", "mine.yaml: rewards.deference: 1 is refused"),
        ("rewards: {deferense: {}}", "mine.yaml: rewards.deferense: There is no reward term 'deferense'. Did you"),
        ("rewards: {'rewards:RewardTerm': {}}", "mine.yaml: rewards.rewards:RewardTerm: RewardTerm does not say how"),
        ("rewards: {communication: {budget_tokens: 2}}", "mine.yaml: rewards.communication: budget_tokens (2) must"),
        ("env: {name: PairedFunction}", "mine.yaml: env.name: There is no environment 'PairedFunction'. Did you mean"),
        ("env: {name: 3}", "mine.yaml: env.name: 3 is refused"),
        ("env: {name: 'envs.core.lookup:find'}", "mine.yaml: env.name: 'envs.core.lookup:find' is <function find"),
        ("env: {name: 'no_such_lab:Env'}", "mine.yaml: env.name: The environment 'no_such_lab:Env' cannot be imported"),
        ("env: {roundz: 3}", "mine.yaml: env.roundz: unknown key; did you mean 'rounds'?"),
        ("lora: {forecast: true}", "lora.forecast: unknown key; did you mean 'upper_layers'? Known: r, alpha,"),
        ("sources: wide", "mine.yaml: sources: unknown key; did you mean 'env.sources'?"),
        ("lora: {kl_coef: 0.1}", "lora.kl_coef: unknown key; did you mean 'training.kl_coef'?"),
        ("env: {learning_rate: 1}", "did you mean 'training.learning_rate' or 'warmup.learning_rate'?"),
        ("env: {curriculum: {families: [offset]}}", "env.curriculum.families: unknown key; did you mean 'levels'?"),
        ("env: {name: Handover, families: [offset]}", "env.families: unknown key; did you mean 'facts'?"),
        ("{families: [offset], env: {name: Handover}}", "mine.yaml: families: unknown key; did you mean 'name'?"),
        ("evaluation: {env: {name: Handover, families: [offset]}}", "env.families: unknown key; did you mean 'facts'"),
        ("{sources: wide, env: 3}", "mine.yaml: env: 3 is refused: input should be keys"),
        ("weight: 1", "weight: unknown key; did you mean 'evaluation'? Known: name,"),
        ("env: {rounds: two}", "mine.yaml: env.rounds: 'two' is refused: input should be a valid integer"),
        ("env: {rounds: -1}", "mine.yaml: env.rounds: -1 is refused: input should be greater than or equal to 0"),
        (
            "env: {cue_reliability: 2.0}",
            "mine.yaml: env.cue_reliability: 2.0 is refused: input should be less than or",
        ),
        ("env: {families: [ofset]}", "mine.yaml: env.families: There is no family 'ofset'. Did you mean 'offset'?"),
        (
            "env: {families: offset}",
            "mine.yaml: env.families: families is 'offset'; it must be a list",
        ),
        ("env: {cells: {both_write: 1}}", "mine.yaml: env.cells.both_write: unknown key; did you mean 'both_"),
        ("env: {cells: {both_wrong: much}}", "mine.yaml: env.cells.both_wrong: 'much' is refused"),
        ("env: 3", "mine.yaml: env: 3 is refused"),
        ("training: {save_steps: 5}", "mine.yaml: training.save_steps: it has no effect: set save_updates"),
        ("training: {per_device_train_batch_size: 2}", "training.per_device_train_batch_size: it has no effect: set"),
        ("training: {seed: 1}", "mine.yaml: training.seed: set seed at the top level of the configuration"),
        (
            "training: {report_to: wnadb}",
            "training.report_to: 'wnadb' is refused: it is not supported. Did you mean 'wan",
        ),
        ("training: {lr: '???'}", "mine.yaml: training.lr: ??? was left to fill: give it a value in a later file"),
        ("seed: ${nothing}", "mine.yaml: seed: Interpolation key 'nothing' not found"),
        ("lora: {target_modules: [q_proj, '${x}']}", "mine.yaml: lora.target_modules.1: Interpolation key 'x' not"),
        ("seed: 1\nseed: 2", "mine.yaml: not valid YAML: line 2: found duplicate key seed"),
        ("seed: [1", "mine.yaml: not valid YAML: line 2: "),
        ("- seed", "mine.yaml: must hold `key: value` lines, not a list"),
        ("3", "mine.yaml: must hold `key: value` lines"),
        ("1: 2", "mine.yaml: 1: 1 is refused: keys should be strings"),
        ("\0", "mine.yaml: not valid YAML: unacceptable character"),
    ],
)
def test_a_wrong_file_is_one_clear_line(tmp_path, text, message):
    with pytest.raises(ConfigError) as caught:
        load_config([CONFIGS / "quickstart.yaml", write(tmp_path, text)])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed", "command line: 'seed' is not KEY=VALUE"),
        ("=1", "command line: '=1' is not KEY=VALUE"),
        ("lora.rank=1", "command line: lora.rank: unknown key"),
        ("seed=[1", "command line: 'seed=[1': not valid YAML"),
        ("rewards.consensus.weight=-0.1", "command line: rewards.consensus.weight: -0.1 is refused"),
    ],
)
def test_a_wrong_override_is_one_clear_line(override, message):
    with pytest.raises(ConfigError) as caught:
        load_config([CONFIGS / "base.yaml"], [override])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_file_named_is_the_one_that_holds_the_key(tmp_path):
    guilty = write(tmp_path, "lora: {r: 0}\n", "guilty.yaml")
    innocent = write(tmp_path, "lora: {alpha: 8}\n", "innocent.yaml")
    with pytest.raises(ConfigError, match=r"guilty.yaml: lora\.r: 0") as caught:
        load_config([guilty, innocent], ["seed=1"])
    assert caught.value.keys == ("lora", "r")


def test_missing_files(tmp_path):
    with pytest.raises(ConfigError, match=r"quickstrat.yaml: no such file; did you mean .*quickstart.yaml"):
        load_config([CONFIGS / "quickstrat.yaml"])
    with pytest.raises(ConfigError, match="there is no folder"):
        load_config([tmp_path / "nowhere" / "x.yaml"])
    write(tmp_path, "", ".hidden.yaml")
    with pytest.raises(ConfigError, match="has no YAML file"):
        load_config([tmp_path / "x.yaml"])
    with pytest.raises(ConfigError, match="cannot be read as text"):
        load_config([CONFIGS])


def test_later_code_can_name_the_file_too(tmp_path):
    config = load_config([write(tmp_path, "training: {learning_rate: 1}\n")], ["training.max_steps=1"])
    error = config.error(("training", "learning_rate"), "unknown key")
    assert str(error) == f"{tmp_path / 'mine.yaml'}: training.learning_rate: unknown key"
    assert str(config.error(("training", "max_steps"), "no")) == "command line: training.max_steps: no"
    assert str(Config().error(("training", "x"), "no")) == "training.x: no"


def test_nearest_ignores_case():
    assert nearest("pairedfunction", ["DesignReview", "PairedFunctions"]) == "PairedFunctions"


def test_dotted_is_what_an_override_takes():
    keys = ("rewards", "my_lab.rewards:Humility", "weight")
    assert dotted(keys) == "rewards[my_lab.rewards:Humility].weight"


@pytest.mark.parametrize(
    "override", ["lora.r=2", "seed=1", "rewards.consensus.weight=0", "evaluation.seed=5", "training.learning_rate=1"]
)
def test_a_resumed_run_may_not_change_what_it_is(override):
    began = load_config([CONFIGS / "quickstart.yaml"])
    with pytest.raises(ConfigError, match=f"command line: {override.partition('=')[0]}: .* the run began with"):
        load_config([CONFIGS / "quickstart.yaml"], [override]).going_on(began)


def test_a_resumed_run_may_be_longer_and_elsewhere():
    began = load_config([CONFIGS / "quickstart.yaml"])
    changes = ["training.num_updates=99", "output_dir=x", "env.curriculum={window: 8}", "training.report_to=none"]
    load_config([CONFIGS / "quickstart.yaml"], changes).going_on(began)


def test_a_resumed_run_keeps_the_dtype_that_was_the_fastest_where_it_began():
    asked = load_config([CONFIGS / "quickstart.yaml"])
    assert asked.going_on(asked.settled("float32")).model.dtype == "float32"
    with pytest.raises(ConfigError, match="model.dtype: 'bfloat16' is refused: the run began with 'float32'"):
        load_config([CONFIGS / "quickstart.yaml"], ["model.dtype=bfloat16"]).going_on(asked.settled("float32"))
