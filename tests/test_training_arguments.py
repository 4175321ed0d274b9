"""The section `training`: what becomes of it, and what is refused in one line."""

import dataclasses
import importlib.util

import pytest
import tiny

from marl_coop.config.errors import ConfigError
from marl_coop.config.schema import load_config
from marl_coop.experiment.checks import try_training
from marl_coop.experiment.setup import training_arguments
from marl_coop.hyperparameters import ELSEWHERE, WITHOUT_EFFECT, Hyperparameters
from marl_coop.ppo.config import MultiAgentPPOConfig


def configured(*overrides):
    return training_arguments(load_config([], [*overrides, "training.report_to=none", "training.use_cpu=true"]), "x")


def test_the_training_section_becomes_arguments():
    args = configured("training.num_updates=7", "training.kl_coef=0.5", "seed=3", "training.num_ppo_epochs=2")
    assert (args.num_updates, args.kl_coef, args.seed, args.output_dir) == (7, 0.5, 3, "x")
    assert args.steps_per_update == 4
    assert args.max_steps == 28
    assert args.logging_steps == 4


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "training.learning_rat=1e-3",
            "command line: training.learning_rat: unknown key; did you mean 'learning_rate'?",
        ),
        ("training.klcoef=1", "unknown key; did you mean 'kl_coef'?"),
        ("training.kl_coef=-0.1", "training.kl_coef: -0.1 is refused: input should be greater than or equal to 0"),
        ("training.kl_coef=.nan", "training.kl_coef: nan is refused: input should be a finite number"),
        ("training.learning_rate=.inf", "training.learning_rate: inf is refused: input should be a finite number"),
        ("training.kl_reference=me", "training.kl_reference: 'me' is refused: input should be 'base' or 'start'"),
        ("training.loraplus_lr_ratio=0", "training.loraplus_lr_ratio: 0 is refused: input should be greater than 0"),
        ("training.num_updates=0", "training.num_updates: 0 is refused: input should be greater than or equal to 1"),
        ("training.temperature=0", "training.temperature: 0 is refused: input should be greater than 0.001"),
        ("training.critic=none", "training.critic: 'none' is refused: input should be 'central' or 'local'"),
        (
            "training.num_updates=ten",
            "command line: training.num_updates: 'ten' is refused: input should be a valid int",
        ),
        ("training.seed=1", "training.seed: set seed at the top level"),
        ("training.output_dir=y", "training.output_dir: set output_dir at the top level"),
        (
            "training.lr_scheduler_type=sometimes",
            "training.lr_scheduler_type: 'sometimes' is refused: it is not supported",
        ),
        ("training.num_updates=1.5", "training.num_updates: 1.5 is refused: input should be a valid integer"),
        ("training.num_updates=true", "training.num_updates: True is refused: input should be a valid integer"),
        ("training.save_updates=0", "training.save_updates: 0 is refused"),
        ("training.weight_decay=-1", "training.weight_decay: -1 is refused"),
        ("training.advantage=gea", "training.advantage: 'gea' is refused: input should be 'gae', 'counterfactual' or"),
        (
            "training.optim=adamw8",
            "training.optim: 'adamw8' is refused: it is not supported. Did you mean 'adamw_8bit'",
        ),
        (
            "training.engine=embeded",
            "training.engine: There is no engine 'embeded'. Did you mean 'embedded'",
        ),
        ("training.fp16=true", "training.fp16: it is not supported: set model.dtype"),
        ("training.eval_strategy=steps", "training.eval_strategy: it has no effect: set evaluation.every"),
        ("training.push_to_hub=true", "training.push_to_hub: it is not supported"),
        ("training.max_steps=0", "training.max_steps: 0 is refused"),
        ("training.gradient_checkpointing_kwargs={use_reentran: 1}", "unknown key; did you mean 'use_reentrant'?"),
        ("seed=4294967296", "command line: seed: 4294967296 is refused"),
        ("training.gamma=2", "gamma"),
        ("training.clip_low=-1", "clip_low"),
    ],
)
def test_a_wrong_training_key_is_one_clear_line(override, message):
    with pytest.raises(ConfigError) as caught:
        configured(override)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "options", [{"num_mini_batches": 3}, {"num_mini_batches": 2, "gradient_accumulation_steps": 8}]
)
def test_episodes_that_cannot_be_shared(tmp_path, options):
    parts = options["num_mini_batches"] * options.get("gradient_accumulation_steps", 1)
    with pytest.raises(ValueError, match=rf"episodes_per_update: 8 cannot be shared by .* use a multiple of {parts}"):
        tiny.cue_trainer(tmp_path, **options)


def test_every_field_of_the_arguments_can_be_set_or_is_refused_with_a_reason():
    fields = {field.name for field in dataclasses.fields(MultiAgentPPOConfig)}
    refused = ELSEWHERE.keys() | WITHOUT_EFFECT.keys()
    assert fields - refused == Hyperparameters.__annotations__.keys()
    assert not refused & Hyperparameters.__annotations__.keys()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["optim=sgd", "optim_args=momentun=0.9"], "'momentun=0.9' has no effect on this optimiser"),
        (["optim=sgd", "optim_args=momentum=abc"], "optim_args: 'momentum=abc' is refused: could not convert"),
        (
            ["lr_scheduler_type=linear", "lr_scheduler_kwargs.min_lr=0.1"],
            "_kwargs.min_lr: unknown key; the schedule 'linear'",
        ),
        (["lr_scheduler_kwargs.min_lr=0.1"], "unknown key; the schedule 'constant' takes none"),
        (["lr_scheduler_type=cosine_with_min_lr"], "lr_scheduler_type: 'cosine_with_min_lr' is refused: One of min_lr"),
    ],
)
def test_what_no_optimiser_or_schedule_takes_is_refused_in_one_line(overrides, message):
    quiet = ["training.report_to=none", "training.use_cpu=true"]
    config = load_config([], [*quiet, *(f"training.{override}" for override in overrides)])
    with pytest.raises(ConfigError) as caught:
        try_training(config, training_arguments(config))
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("WANDB_MODE", "ofline", "should be 'online', 'offline'"),
        ("WANDB_BASE_URL", "me:planted@host", "URL scheme should be"),
        ("WANDB_PROJECT", "a/b", "cannot contain characters"),
        ("WANDB_RUN_ID", "a/b", "cannot contain the characters"),
    ],
)
def test_what_the_environment_tells_wandb_is_judged_before_the_run(variable, value, said, monkeypatch):
    monkeypatch.setenv(variable, value)
    config = load_config([], ["training.report_to=wandb", "training.use_cpu=true"])
    with pytest.raises(ConfigError, match=rf"training.report_to: 'wandb' is refused: \${variable} .*{said}") as caught:
        try_training(config, training_arguments(config, "x"))
    assert "planted" not in str(caught.value)


@pytest.mark.parametrize(
    ("library", "override"), [("bitsandbytes", "optim=adamw_8bit"), ("mlflow", "report_to=mlflow")]
)
def test_an_optimiser_or_tracker_whose_library_is_not_there_is_refused(library, override):
    if importlib.util.find_spec(library):
        pytest.skip(f"{library} is installed")
    config = load_config([], ["training.report_to=none", "training.use_cpu=true", f"training.{override}"])
    with pytest.raises(ConfigError, match=rf"training\.{override.replace('=', ': .')}. is refused: .*{library}"):
        try_training(config, training_arguments(config))


@pytest.mark.parametrize(
    "overrides",
    [
        ["optim=sgd", "optim_args=momentum=0.9,nesterov=true"],
        ["lr_scheduler_type=cosine_with_min_lr", "lr_scheduler_kwargs.min_lr=0.1"],
        ["report_to=wandb"],
    ],
)
def test_what_optimiser_schedule_and_tracker_take_passes(overrides):
    config = load_config([], ["training.use_cpu=true", *(f"training.{override}" for override in overrides)])
    try_training(config, training_arguments(config))


def test_a_precision_of_accelerate_for_the_learner_alone_is_refused(monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    config = load_config([], ["training.report_to=none", "training.use_cpu=true"])
    with pytest.raises(ConfigError, match="accelerate launch --mixed_precision: 'bf16' is refused"):
        try_training(config, training_arguments(config))


def test_processes_that_do_not_find_each_other_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="2 processes were launched, and each would train alone"):
        tiny.arguments(tmp_path, use_cpu=False)
