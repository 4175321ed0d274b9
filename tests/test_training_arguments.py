"""The section `training`: what becomes of it, and what is refused in one line."""

import pytest
import tiny

from marl_coop.config.errors import ConfigError
from marl_coop.config.schema import load_config
from marl_coop.experiment.setup import training_arguments


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
        ("training.kl_coef=-0.1", "training.kl_coef must be a number of at least 0, got -0.1"),
        ("training.kl_coef=.nan", "training.kl_coef must be a number of at least 0, got nan"),
        ("training.learning_rate=.inf", "training.learning_rate must be positive, got inf"),
        ("training.kl_reference=me", "training.kl_reference must be 'base' or 'start', got 'me'"),
        ("training.loraplus_lr_ratio=0", "training.loraplus_lr_ratio must be positive, got 0"),
        ("training.num_updates=0", "training.num_updates must be positive, got 0"),
        ("training.temperature=0", "training.temperature must be positive"),
        ("training.critic=none", "training.critic must be 'central' or 'local', got 'none'"),
        ("training.num_updates=ten", "command line: training: "),
        ("training.seed=1", "training.seed: set seed at the top level"),
        ("training.output_dir=y", "training.output_dir: set output_dir at the top level"),
        ("training.lr_scheduler_type=sometimes", "command line: training: "),
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
    with pytest.raises(ValueError, match=rf"episodes_per_update=8 cannot be shared by .* use a multiple of {parts}"):
        tiny.cue_trainer(tmp_path, **options)
