"""The format warm-up: what it teaches, what it leaves alone, and when it is done again."""

import pytest
import tiny
import torch
from peft.tuners.lora import LoraLayer
from transformers import AutoModelForCausalLM

from marl_coop.config.schema import load_config
from marl_coop.experiment import warmup
from marl_coop.players import BASE
from marl_coop.policy.routed_lora import spans_of
from marl_coop.rollout.chat import Chat

SMALL = [
    "env={name: DesignReview, families: [date_format]}",
    "warmup={steps: 3, batch_size: 4, micro_batch_size: 2, learning_rate: 1e-2}",
]


@pytest.fixture
def trainings(tmp_path, monkeypatch):
    """An empty cache; the list gets an entry for every training."""
    monkeypatch.setenv("MARL_COOP_CACHE", str(tmp_path / "cache"))
    done, through = [], warmup.SFTTrainer.train
    monkeypatch.setattr(warmup.SFTTrainer, "train", lambda self: (done.append(self), through(self))[1])
    return done


@pytest.fixture
def tokenizer():
    return tiny.byte_tokenizer()


def config_of(*overrides):
    return load_config([], [*SMALL, *overrides])


def rows_of(config, tokenizer, episodes=6, system="system"):
    return warmup.demonstrate([config.make_env()], Chat(tokenizer, system), episodes, config.seed)


def warm(tokenizer, *overrides, base=None):
    torch.manual_seed(0)
    base, config = base or tiny.base_model(len(tokenizer), spread=0.1), config_of(*overrides)
    rows = rows_of(config, tokenizer, episodes=-(-config.warmup.steps * config.warmup.batch_size // 2))
    settings = config.warmup.model_dump()
    return warmup.warm_adapter(base, tokenizer, tiny.lora_config(), rows, seed=config.seed, **settings)


def test_it_trains_once(tokenizer, trainings, tmp_path):
    first = warm(tokenizer)
    assert len(trainings) == 1
    assert trainings[0].state.global_step == 3
    assert {file.name for file in first.iterdir()} == {"adapter_config.json", "adapter_model.safetensors", "base.json"}
    stamp = (first / "adapter_model.safetensors").stat().st_mtime_ns
    assert warm(tokenizer) == first
    assert len(trainings) == 1
    assert (first / "adapter_model.safetensors").stat().st_mtime_ns == stamp


def test_the_base_comes_back_as_it_was(tokenizer, trainings):
    base = tiny.base_model(len(tokenizer), spread=0.1)
    before = {name: p.clone() for name, p in base.state_dict().items()}
    warm(tokenizer, base=base)
    assert not [module for module in base.modules() if isinstance(module, LoraLayer)]
    after = base.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def key(tokenizer, *overrides, system="system", base=None, lora=None):
    config = config_of(*overrides)
    numbers = config.warmup.model_dump() | {"seed": config.seed}
    base, lora = base or tiny.base_model(len(tokenizer)), lora or tiny.lora_config()
    return warmup.cache_key(base, lora, rows_of(config, tokenizer, system=system), numbers)


@pytest.mark.parametrize("override", ["env.rounds=2", "env.cue_reliability=0.5", "warmup.steps=4", "seed=1"])
def test_what_it_depends_on_makes_another_key(tokenizer, override):
    assert key(tokenizer, override) != key(tokenizer)


def test_it_is_kept_by_content_and_not_by_path(tokenizer, tmp_path):
    base = tiny.base_model(len(tokenizer))
    for place in ("here", "there"):
        base.save_pretrained(tmp_path / place)
    here, there = (AutoModelForCausalLM.from_pretrained(tmp_path / place) for place in ("here", "there"))
    assert key(tokenizer, base=here) == key(tokenizer, base=there)
    with torch.no_grad():
        there.get_input_embeddings().weight[3, 3] += 1
    assert key(tokenizer, base=here) != key(tokenizer, base=there)
    here.config.rope_parameters = dict(here.config.rope_parameters, rope_theta=5.0)  # no weight says this
    assert key(tokenizer, base=here) != key(tokenizer)
    assert key(tokenizer, base=base.bfloat16()) != key(tokenizer)
    assert key(tokenizer, lora=tiny.lora_config(r=2)) != key(tokenizer)
    assert key(tokenizer, system="other") != key(tokenizer)
    before = key(tokenizer)
    tokenizer.chat_template += "{{ ' ' }}"
    assert key(tokenizer) != before


@pytest.mark.parametrize(
    "override", ["training.kl_coef=1", "rewards.consensus.weight=0", "evaluation.episodes=3", "name=x"]
)
def test_what_it_does_not_depend_on_keeps_the_key(tokenizer, override):
    assert key(tokenizer, override) == key(tokenizer)


def test_other_words_of_the_environment_make_another_key(tokenizer, monkeypatch):
    before = key(tokenizer)
    monkeypatch.setattr("envs.core.env.CoopEnv.instruction", lambda self, seat, phase: "Say it differently.")
    assert key(tokenizer) != before


def test_only_what_a_seat_wrote_has_labels(tokenizer):
    env, rows = config_of().make_env(), iter(rows_of(config_of(), tokenizer, episodes=4))
    for index in range(4):
        seats = warmup.demonstrated([env], index, seed=0)
        for turns, row in zip(seats.values(), rows, strict=False):
            ids, labels = row["input_ids"], row["labels"]
            assert len(ids) == len(labels)
            assert all(label in (-100, token) for token, label in zip(ids, labels, strict=True))
            written = tokenizer.decode([label for label in labels if label != -100])
            assert written == "".join(f"{turn.reply}<|im_end|>" for turn in turns)
            rest = tokenizer.decode([token for token, label in zip(ids, labels, strict=True) if label == -100])
            assert all(turn.observation in rest for turn in turns)


def test_what_comes_of_the_last_replies_is_not_asked_for(tokenizer, monkeypatch):
    monkeypatch.setattr("envs.paired_functions.PairedFunctions.finish", None)  # tests run there
    assert len(rows_of(config_of(), tokenizer, episodes=2)) == 4


@pytest.mark.parametrize("split", [1, 4])
def test_a_step_is_the_mean_over_all_labelled_tokens_of_its_batch(tokenizer, trainings, split):
    """However it is split into micro-batches: the gradient of the first step against one by hand."""
    overrides = ["warmup.steps=1", f"warmup.micro_batch_size={split}"]
    gradients, through = {}, warmup.SFTTrainer.create_optimizer

    def watched(self, *args, **kwargs):
        optimizer = through(self, *args, **kwargs)
        names = {id(p): name for name, p in self.model.named_parameters()}
        optimizer.register_step_pre_hook(
            lambda *_: gradients.update(
                {names[id(p)]: p.grad.clone() for g in optimizer.param_groups for p in g["params"]}
            )
        )
        return optimizer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(warmup.SFTTrainer, "create_optimizer", watched)
        patch.setattr(warmup.SFTTrainer, "_clip_grad_norm", lambda self, model: torch.tensor(0.0), raising=False)
        warm(tokenizer, *overrides)
    rows = rows_of(config_of(*overrides), tokenizer, episodes=2)
    torch.manual_seed(0)
    policy = tiny.TeamPolicy(
        tiny.base_model(len(tokenizer), spread=0.1), tiny.lora_config(), ["default"], critic_seats=1
    )
    policy.load_state_dict({n: p for n, p in initial(trainings[-1], policy).items()}, strict=False)
    total, count = 0.0, 0
    for row in rows:
        labels = torch.tensor(row["labels"])
        states = policy.hidden(spans_of(["default"]), torch.tensor([row["input_ids"]]))[0]
        logprobs = policy.logits(states).log_softmax(-1)
        places = (labels != -100).nonzero()[:, 0]
        total = total - logprobs[places - 1, labels[places]].sum()
        count += len(places)
    (total / count).backward()
    for name, parameter in policy.lm.named_parameters():
        if parameter.requires_grad and "lora_B" in name:
            assert torch.allclose(parameter.grad, gradients[name], rtol=1e-3, atol=1e-5), name


def initial(trainer, policy):
    """The A matrices do not move in the first step, because B is 0; B was 0."""
    state = {f"lm.{name}": p.detach().clone() for name, p in trainer.model.named_parameters() if "lora_A" in name}
    return state


def test_another_run_may_finish_the_same_warm_up_first(tokenizer, trainings, tmp_path, monkeypatch):
    """Ablations of rewards with one seed share their warm-up, and start together."""
    other, through = warm(tokenizer), warmup.SFTTrainer.train
    hidden = other.rename(tmp_path / "hidden")
    monkeypatch.setattr(warmup.SFTTrainer, "train", lambda self: (through(self), hidden.rename(other)))
    assert warm(tokenizer) == other
    assert [folder.name for folder in other.parent.iterdir()] == [other.name]


def test_what_comes_after_is_the_same_with_and_without_the_cache(tokenizer, trainings):
    """The critics are made after the warm-up; the same configuration and seed must repeat the run."""
    after = []
    for _ in range(2):
        warm(tokenizer)
        after.append(torch.rand(3))
    assert len(trainings) == 1
    assert torch.equal(*after)


def test_it_teaches_the_replies(tokenizer, trainings):
    steps = "warmup.steps=12"
    folder = warm(tokenizer, steps)
    policy = tiny.team(tiny.base_model(len(tokenizer), spread=0.1), trained=False)
    policy.load_adapter("agent_0", folder)
    row = rows_of(config_of(steps, "seed=3"), tokenizer, episodes=1)[0]  # one that was not shown
    labels = torch.tensor(row["labels"])
    places = (labels != -100).nonzero()[:, 0]
    loss = {}
    with torch.no_grad():
        for adapter in ("agent_0", BASE):
            states = policy.hidden(spans_of([adapter]), torch.tensor([row["input_ids"]]))[0]
            loss[adapter] = -policy.logits(states).log_softmax(-1)[places - 1, labels[places]].mean()
    assert loss["agent_0"] < loss[BASE] - 0.5
