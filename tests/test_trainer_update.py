"""An update: what it equals, whom it moves, and what happens to a loss that is not finite."""

import math

import pytest
import tiny
import torch
from trained import SGD, Log, rows_of, same, trained

from marl_coop.players import BASE
from marl_coop.policy.routed_lora import spans_of
from marl_coop.ppo import losses
from marl_coop.ppo.batch import SeatSample, collate, micro_batches
from marl_coop.rollout.trajectory import Trajectory


def test_accumulating_gradients_is_the_same_update(tmp_path):
    """Parts of different lengths: a mean of means would differ."""
    whole, _ = trained(tmp_path, **SGD, kl_coef=0.1, entropy_coef=0.1, gradient_accumulation_steps=1)
    parts, _ = trained(tmp_path, **SGD, kl_coef=0.1, entropy_coef=0.1, gradient_accumulation_steps=4)
    counts = {tuple(parts.token_counts(parts.minibatch(0, 0, micro)[0]).values()) for micro in range(4)}
    assert len(counts) > 1
    assert same(tiny.weights(whole.model), tiny.weights(parts.model), 1e-5)
    start = tiny.weights(tiny.team(tiny.base_model(len(whole.processing_class))))
    assert not same(tiny.weights(whole.model), start, 1e-2)


@pytest.mark.parametrize("importance", ["sampler", "recompute"])
def test_a_budget_of_tokens_bounds_every_forward_and_changes_no_update(tmp_path, monkeypatch, importance):
    options = SGD | {"kl_coef": 0.1, "importance": importance}
    whole, _ = trained(tmp_path, **options)
    sizes = []

    def collate_and_count(rows, *args):
        sizes.append((made := collate(rows, *args)).layout.input_ids_RT.numel())
        return made

    for module in ("objective", "experience", "importance"):
        monkeypatch.setattr(f"marl_coop.ppo.{module}.collate", collate_and_count)
    parts, _ = trained(tmp_path, **options, micro_batch_tokens=100)
    assert max(sizes) <= 100 and len(sizes) > 8
    assert same(tiny.weights(whole.model), tiny.weights(parts.model), 1e-5)


@pytest.mark.parametrize("kl_coef", [0.0, 0.1])
def test_chats_in_one_row_are_the_same_update_without_padding(tmp_path, monkeypatch, kl_coef):
    options = SGD | {"kl_coef": kl_coef, "importance": "recompute", "micro_batch_tokens": 200}
    padded, _ = trained(tmp_path, **options)
    shapes = []

    def collate_and_measure(rows, *args):
        made = collate(rows, *args)
        shapes.append((made.layout.input_ids_RT.shape, (1, sum(len(row.trace.ids) for row in rows))))
        return made

    for module in ("objective", "experience", "importance"):
        monkeypatch.setattr(f"marl_coop.ppo.{module}.collate", collate_and_measure)
    free, _ = trained(tmp_path, **options, padding_free=True)
    assert all(shape == tokens for shape, tokens in shapes) and max(tokens for _, (_, tokens) in shapes) > 100
    assert same(tiny.weights(padded.model), tiny.weights(free.model), 1e-5)


def test_rows_are_shared_among_micro_batches_by_length():
    rows = [
        SeatSample(trace=Trajectory(seat="a", player=None, ids=[0] * n), trainable=True, terms_MK=torch.zeros(1, 0))
        for n in (3, 40, 16, 90, 17)
    ]
    parts = micro_batches(rows, tokens=64)
    assert [[len(row.trace.ids) for row in part] for part in parts] == [[90], [40], [16, 17], [3]]
    parts = micro_batches(rows, tokens=64, padding_free=True)
    assert [[len(row.trace.ids) for row in part] for part in parts] == [[90], [40, 17], [3, 16]]
    assert micro_batches([], tokens=64) == []


def test_minibatches_share_the_episodes_of_an_update(tmp_path):
    trainer = tiny.cue_trainer(tmp_path, num_mini_batches=2, gradient_accumulation_steps=2, num_ppo_epochs=2)
    trainer.play(0)
    orders = []
    for epoch in range(2):
        seen = []
        for index in range(2):
            micros = [trainer.minibatch(0, 2 * epoch + index, micro) for micro in range(2)]
            assert {id(r) for part, _ in micros for r in part} == {id(r) for r in micros[0][1]}
            seen += [id(r) for part, _ in micros for r in part]
        assert sorted(seen) == sorted(id(r) for rows in trainer.rows for r in rows.values())
        orders.append(seen)
    assert orders[0] != orders[1]


def test_checkpointing_activations_is_the_same_update(tmp_path):
    plain, _ = trained(tmp_path, **SGD)
    less_memory, _ = trained(tmp_path, **SGD, gradient_checkpointing=True)
    assert less_memory.model.lm.get_base_model().get_decoder().layers[0].gradient_checkpointing
    assert same(tiny.weights(plain.model), tiny.weights(less_memory.model), 1e-5)


def test_what_lies_below_the_adapters_may_be_kept(tmp_path, monkeypatch):
    """The same updates whether the lower layers run in every epoch or their states are kept from play."""
    options = SGD | {"learning_rate": 0.3, "num_ppo_epochs": 2, "num_mini_batches": 2, "num_updates": 2, "max_rows": 6}
    found = []
    for models in (("llama",), ()):
        monkeypatch.setattr("marl_coop.policy.team.PREFIX_MODELS", models)
        base = tiny.base_model(len(tiny.word_tokenizer(tiny.WORDS)), layers=3)
        trainer, _ = trained(tmp_path, policy=tiny.team(base, layers=[2]), **options)
        assert all(
            (row.trace.prefix_hidden_TH is not None) == bool(models) for rows in trainer.rows for row in rows.values()
        )
        found.append(tiny.weights(trainer.model))
    assert same(*found, 1e-5)


def test_training_one_agent_leaves_the_others_bytes(tmp_path):
    trainer = tiny.cue_trainer(tmp_path / "run", rewards=[tiny.Length(agent="agent_0")], num_updates=2, vf_coef=0.0)
    trainer.model.save(tmp_path / "before")
    trainer.train()
    trainer.model.save(tmp_path / "after")
    files = [
        [(tmp_path / side / seat / "adapter_model.safetensors").read_bytes() for side in ("before", "after")]
        for seat in tiny.SEATS
    ]
    assert files[0][0] != files[0][1]
    assert files[1][0] == files[1][1]


def test_the_base_never_changes(tmp_path):
    trainer = tiny.cue_trainer(tmp_path, num_updates=2)
    frozen = {name: p.detach().clone() for name, p in trainer.model.named_parameters() if not p.requires_grad}
    trainer.train()
    after = dict(trainer.model.named_parameters())
    assert frozen
    assert all(torch.equal(frozen[name], after[name]) for name in frozen)


def test_an_update_with_faults_alone_changes_nothing(tmp_path):
    policy = tiny.team(tiny.base_model(len(tiny.word_tokenizer(tiny.WORDS))))
    before = tiny.weights(policy)
    _, (record,) = trained(
        tmp_path, policy=policy, env={"fault_every": 1}, kl_coef=0.1, entropy_coef=0.1, max_fault_rate=1.0
    )
    assert record["team/sandbox_fault_rate"] == 1
    assert same(before, tiny.weights(policy), 1e-5)
    assert same(tiny.weights(policy.lm), {n.removeprefix("lm."): p for n, p in before.items() if n.startswith("lm.")})


def test_weights_decay_as_the_arguments_say(tmp_path):
    optimizer = tiny.cue_trainer(tmp_path, weight_decay=0.003).create_optimizer()
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.003] * 3


def test_a_and_b_matrices_and_critics_have_their_own_rates(tmp_path):
    trainer = tiny.cue_trainer(tmp_path, learning_rate=1e-4, loraplus_lr_ratio=16, critic_learning_rate=1e-3)
    names = {id(p): name for name, p in trainer.model.named_parameters() if p.requires_grad}
    groups = trainer.create_optimizer().param_groups
    rates = {names.pop(id(p)): group["lr"] for group in groups for p in group["params"]}
    assert not names
    for name, rate in rates.items():
        assert rate == pytest.approx(1e-4 if ".lora_A." in name else 16e-4 if ".lora_B." in name else 1e-3)


@pytest.mark.parametrize("reference", ["base", "start"])
def test_an_update_moves_away_from_the_reference_and_is_played(tmp_path, reference):
    base = tiny.base_model(len(tiny.word_tokenizer(tiny.WORDS)))
    trainer = tiny.cue_trainer(
        tmp_path,
        policy=tiny.team(base, trained=reference == "start"),
        callbacks=[log := Log()],
        num_updates=2,
        learning_rate=0.05,
        kl_coef=1e-6,
        kl_reference=reference,
    )
    before = trainer.players.play(range(8), sampling_seed=1)
    trainer.train()
    after = trainer.players.play(range(8), sampling_seed=1)
    for seat in tiny.SEATS:
        first, second = (record[f"{seat}/kl_to_reference"] for record in log.updates)
        assert first == pytest.approx(0, abs=1e-6)
        assert second > 1e-3
        logprobs = [[t.logprobs for r in rollouts for t in r.traces[seat].turns] for rollouts in (before, after)]
        assert logprobs[0] != logprobs[1]
    assert [r.episode.turns for r in before] != [r.episode.turns for r in after]


def test_descent_makes_good_replies_likelier(tmp_path):
    trainer = tiny.cue_trainer(tmp_path, **(SGD | {"learning_rate": 0.1}), vf_coef=0.0)
    rows = rows_of(trainer)
    before = scores(trainer, rows)
    trainer.train()  # plays the same episodes
    gain = scores(trainer, rows) - before
    advantages = torch.cat(
        [row.advantages_K[k].expand(t.stop - t.start) for row in rows for k, t in enumerate(row.trace.turns)]
    )
    assert (gain * advantages).sum() > 0


@torch.no_grad()
def scores(trainer, rows):
    return torch.cat(
        [
            trainer.model.score(
                spans_of([row.trace.adapter]),
                torch.tensor([row.trace.ids]),
                {},
                *(
                    torch.tensor(axis)
                    for axis in zip(
                        *[(0, t) for turn in row.trace.turns for t in range(turn.start, turn.stop)], strict=True
                    )
                ),
                1.0,
            )[0].logprobs_N
            for row in rows
        ]
    )


@torch.no_grad()
def entropy_and_kl(trainer, rows):
    """Means over the sampled tokens of the policy's entropy and of its KL to the base, from whole distributions."""
    found = []
    for row in rows:
        ids = torch.tensor([row.trace.ids])
        policy, base = (
            trainer.model.logits(trainer.model.hidden(spans_of([adapter]), ids)[0]).log_softmax(-1)
            for adapter in (row.trace.adapter, BASE)
        )
        for turn in row.trace.turns:
            p, q = policy[turn.start - 1 : turn.stop - 1], base[turn.start - 1 : turn.stop - 1]
            found.append(torch.stack([-(p.exp() * p).sum(-1), (p.exp() * (p - q)).sum(-1)], -1))
    return torch.cat(found).mean(0)


def test_the_entropy_bonus_and_the_kl_do_what_they_say(tmp_path):
    options = SGD | {"learning_rate": 0.1, "rewards": [tiny.Length(weight=0.0)], "vf_coef": 0.0}
    for coefficient, index, sign in [("entropy_coef", 0, 1), ("kl_coef", 1, -1)]:
        trainer = tiny.cue_trainer(tmp_path, **options, **{coefficient: 1.0})
        rows = rows_of(trainer)
        before = entropy_and_kl(trainer, rows)
        trainer.train()
        assert sign * (entropy_and_kl(trainer, rows) - before)[index] > 0.01


def break_the_second_loss(monkeypatch):
    """The second call of the loss from now on gives nan; the list grows with every call."""
    calls, through = [], losses.policy_loss

    def sometimes_nan(*args):
        calls.append(1)
        loss, clipped = through(*args)
        return loss * (math.nan if len(calls) == 2 else 1.0), clipped

    monkeypatch.setattr(losses, "policy_loss", sometimes_nan)
    return calls


class Watch(Log):
    """Keeps the weights after every step."""

    def __init__(self):
        super().__init__()
        self.steps = []

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.steps.append(tiny.weights(model))


def test_a_loss_that_is_not_finite_is_skipped_and_counted(tmp_path, monkeypatch):
    break_the_second_loss(monkeypatch)
    trainer = tiny.cue_trainer(tmp_path, callbacks=[log := Watch()], num_ppo_epochs=3, num_updates=2)
    trainer.train()
    assert [record["non_finite_losses"] for record in log.updates] == [1, 0]
    assert all(torch.isfinite(p).all() for p in log.steps[-1].values())
    assert same(log.steps[0], log.steps[1])  # neither the gradient nor Adam's momentum moved anything
    assert not same(log.steps[1], log.steps[2])
    assert all(math.isfinite(record["loss"]) for record in log.updates)


def test_a_loss_that_is_not_finite_drops_its_whole_step(tmp_path, monkeypatch):
    calls = break_the_second_loss(monkeypatch)
    policy = tiny.team(tiny.base_model(len(tiny.word_tokenizer(tiny.WORDS))))
    before = tiny.weights(policy)
    options = {"num_mini_batches": 1, "gradient_accumulation_steps": 4, "num_ppo_epochs": 2}
    tiny.cue_trainer(tmp_path, policy=policy, callbacks=[log := Watch()], **options).train()
    assert len(calls) == 2 + 4  # the third and fourth part of the first step were not computed
    assert same(before, log.steps[0])
    assert not same(log.steps[0], log.steps[1])


def test_one_agents_spike_does_not_shrink_the_others_step(tmp_path):
    trainer = tiny.cue_trainer(tmp_path)
    for adapter, size in [("agent_0", 100.0), ("agent_1", 1e-4)]:
        for parameter in trainer.model.adapter_parameters(adapter):
            parameter.grad = torch.full_like(parameter, size)
    trainer.clip_gradients()
    norm = torch.stack([p.grad.norm() for p in trainer.model.adapter_parameters("agent_0")]).norm()
    assert norm.item() == pytest.approx(trainer.args.max_grad_norm, rel=1e-3)
    assert all((p.grad == 1e-4).all() for p in trainer.model.adapter_parameters("agent_1"))
