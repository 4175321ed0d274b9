"""Past selves: rolling snapshots of the adapters that are trained, as frozen partners."""

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import torch
from peft import PeftModel
from train_py import make_place, run_here
from trained import Log, repeatable, same, trained

from envs.design_review import DesignReview
from marl_coop.config.errors import ConfigError
from marl_coop.config.policies import build_players, with_snapshots
from marl_coop.config.schema import load_config
from marl_coop.engines.published import PublishedAdapters
from marl_coop.experiment import memory, setup
from marl_coop.experiment.teams import find_team
from marl_coop.players import Mix, PastSelves, past_folders
from marl_coop.policy.adapters import weights_of
from marl_coop.policy.routed_lora import spans_of
from marl_coop.rollout import limits
from marl_coop.runs.records import read_episodes

A, B = tiny.SEATS


def team_with_past(every=1, limit=2, **options):
    policy = tiny.team(tiny.base_model(len(tiny.word_tokenizer(tiny.WORDS))), **options)
    policy.keep_past(B, every, limit)
    return policy


def seats(policy):
    return {A: A, B: Mix((B, policy.past[B]), (0.5, 0.5))}


def lora(policy, adapter):
    return {name: weight.detach().clone() for name, weight in weights_of(policy.lm, adapter).items()}


def test_the_latest_snapshots_are_kept_and_each_is_as_likely():
    past = PastSelves("x", ("x_past_0", "x_past_1", "x_past_2"), every=2)
    with pytest.raises(RuntimeError, match="no snapshot of x yet"):
        past.draw(np.random.default_rng(0))
    for updates in range(0, 10, 2):
        past.take(updates)
    assert [(p.updates, p.copy) for p in past.selves] == [(4, "x_past_2"), (6, "x_past_0"), (8, "x_past_1")]
    mix = Mix((past, "x"), (3.0, 1.0))
    drawn = Counter(mix.draw(seed) for seed in range(4000))
    assert drawn["x"] / 4000 == pytest.approx(0.25, abs=0.03)
    assert all(drawn[self_] / 4000 == pytest.approx(0.25, abs=0.03) for self_ in past.selves)


class Snapshots(Log):
    """Keeps the adapter after each update, and what the snapshots hold then."""

    def __init__(self):
        super().__init__()
        self.adapter, self.held = [], []

    def on_log(self, args, state, control, logs=None, model=None, **kwargs):
        if "update" not in logs:
            return
        self.adapter.append(lora(model, B))
        self.held.append({past.updates: lora(model, past.copy) for past in model.past[B].selves})


def test_snapshots_are_the_adapter_as_it_was_and_do_not_learn(tmp_path):
    policy = team_with_past(every=2, limit=2)
    start = lora(policy, B)
    log = Snapshots()
    trainer = tiny.cue_trainer(tmp_path, policy=policy, policies=seats(policy), callbacks=[log], num_updates=5)
    trainer.train()
    assert [[*held] for held in log.held] == [[0], [0, 2], [0, 2], [2, 4], [2, 4]]
    for held in log.held:
        for updates, weights in held.items():
            assert same(weights, log.adapter[updates - 1] if updates else start)
    assert not same(start, log.adapter[1], 1e-3)


def test_a_past_self_plays_with_its_own_weights_is_named_and_teaches_nothing(tmp_path):
    policy, seen = team_with_past(limit=3), []
    trainer = tiny.cue_trainer(
        tmp_path,
        policy=policy,
        policies=seats(policy),
        callbacks=[log := Log()],
        on_rollouts=lambda update, episodes, breakdowns, credits: seen.append((episodes, credits)),
        num_updates=3,
        advantage="counterfactual",
        kl_coef=0.1,
    )
    trainer.train()
    names = [{episode.players[B] for episode in episodes} for episodes, _ in seen]
    assert names[0] == {B, "past:agent_1@0"}
    assert names[2] <= {B, *(f"past:agent_1@{n}" for n in range(3))} and len(names[2]) > 2
    for episodes, credits in seen:
        assert all((B in credit.turns) == (e.players[B] == B) for e, credit in zip(episodes, credits, strict=True))
    among = [episode for episode in seen[2][0] if episode.players[B] != B]
    success = sum(episode.outcome.success for episode in among) / len(among)
    assert log.updates[2]["with/past:agent_1/success"] == pytest.approx(success)
    assert not [key for record in log.updates for key in record if "@" in key]

    held = policy.past[B].selves  # the last update has taken the place of one
    drawn = next(rows[B].trace for rows in trainer.rows if rows[B].trace.player in held)
    turn, ids = drawn.turns[-1], torch.tensor([drawn.ids])
    with torch.no_grad():
        hidden = policy.hidden(spans_of([drawn.player.copy]), ids, use_cache=False)
        logprobs = policy.logits(hidden[0]).log_softmax(-1)
    expected = [float(logprobs[t - 1, drawn.ids[t]]) for t in range(turn.start, turn.stop)]
    assert turn.logprobs == pytest.approx(expected, abs=1e-4)


def test_a_resumed_run_has_the_past_of_one_that_was_not_stopped(tmp_path):
    options = {"num_updates": 5, "save_updates": 3, "max_rows": 4}
    policy = team_with_past()
    straight, records = trained(tmp_path, policy=policy, policies=seats(policy), **options)
    assert [*past_folders(tmp_path / "checkpoint-3", B)] == [2, 3]
    other = team_with_past(seed=99)
    resumed = tiny.cue_trainer(tmp_path, policy=other, policies=seats(other), callbacks=[log := Log()], **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert same(tiny.weights(straight.model), tiny.weights(resumed.model))
    assert repeatable(log.updates) == repeatable(records[3:])
    assert policy.past[B].selves == other.past[B].selves
    for past in other.past[B].selves:
        assert same(lora(policy, past.copy), lora(other, past.copy))


def test_a_snapshot_on_disk_is_a_plain_adapter(tmp_path):
    policy = team_with_past()
    policy.snapshot_past(0)
    policy.save(tmp_path)
    (folder,) = past_folders(tmp_path, B).values()
    folder.with_name("update-0-copy").mkdir()  # another folder there is no snapshot
    assert past_folders(tmp_path, B) == {0: folder}
    alone = PeftModel.from_pretrained(tiny.base_model(len(tiny.word_tokenizer(tiny.WORDS))), folder).eval()
    with torch.no_grad():
        routed = policy.logits(policy.hidden(spans_of([B]), torch.arange(6)[None]))
        assert torch.allclose(alone(torch.arange(6)[None]).logits, routed, atol=1e-5)


def test_engines_that_read_adapters_from_disk_get_the_snapshots(tmp_path):
    policy = team_with_past(every=1, limit=1)
    policy.snapshot_past(0)
    published = PublishedAdapters(policy, tmp_path)
    first = published.publish()
    digest = lambda folder: folder.name.rpartition("-")[2]  # noqa: E731
    assert digest(first["agent_1_past_0"]) == digest(first[B])
    with torch.no_grad():
        policy.adapter_parameters(B)[0].add_(1.0)
    policy.snapshot_past(1)
    second = published.publish()
    assert digest(second["agent_1_past_0"]) == digest(second[B]) != digest(first[B])


def test_a_configuration_seats_past_selves(tmp_path):
    entries = {A: "x", B: {"y": 3.0, "past:y": 1.0}, "agent_2": "past:x"}
    past = {name: PastSelves(name, (f"{name}_past_0",), every=1) for name in "xy"}
    players = build_players(entries, DesignReview(agents=3), lambda url, model: None, past)
    assert players == {A: "x", B: Mix(("y", past["y"]), (3.0, 1.0)), "agent_2": Mix((past["x"],), (1.0,))}

    config = load_config(
        [], ["policies.agent_1={agent_1: 1, 'past:agent_1': 1}", "training.past_limit=3", "training.past_updates=2"]
    )
    args = SimpleNamespace(past_updates=2, past_limit=3, critic_seats=lambda seats: seats)
    policy = setup.make_policy(config, tiny.base_model(40), args)
    assert (policy.past[B].every, policy.past[B].copies) == (2, tuple(f"agent_1_past_{i}" for i in range(3)))
    assert [*policy.past] == [B]


def test_a_team_is_evaluated_beside_the_snapshots_that_it_was_saved_with(tmp_path):
    for updates in (5, 10):
        (tmp_path / "past" / B / f"update-{updates}").mkdir(parents=True)
    found = with_snapshots({B: 1.0, "past:agent_1": 1.0}, tmp_path)
    assert found == {B: 1.0} | {f"frozen:{tmp_path}/past/agent_1/update-{updates}": 0.5 for updates in (5, 10)}
    assert with_snapshots(B, tmp_path) == B
    with pytest.raises(ValueError, match="has no snapshots of 'agent_0'"):
        with_snapshots("past:agent_0", tmp_path)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["policies.agent_1=past:agent_2"], "policies.agent_1: 'past:agent_2' is no past self of an adapter that is"),
        (["policies.agent_1=past"], "'past' is no past self of an adapter that is trained here; there is past:agent_0"),
        (["policies={agent_0: past:agent_1, agent_1: past:agent_0}"], "trained here; there is none"),
        (["training.past_limit=3"], "training.past_limit: it has no effect: no seat is given to past:ADAPTER"),
        (["policies.agent_1=past:agent_0", "training.past_updates=0"], "training.past_updates: 0 is refused"),
    ],
)
def test_past_selves_of_nobody_are_refused_in_one_line(overrides, message):
    with pytest.raises(ConfigError) as caught:
        load_config([], overrides)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_policy_refuses_snapshots_that_have_no_place():
    policy = tiny.team(tiny.base_model(40), adapters=(A, "agent_0_past_1"))
    with pytest.raises(ValueError, match="'agent_0_past_1' is the name of a snapshot"):
        policy.keep_past(A, 1, 2)
    with pytest.raises(ValueError, match="no past selves of 'z'"):
        policy.keep_past("z", 1, 2)


def test_a_run_plays_and_leaves_its_past_selves(tmp_path):
    """The first is the adapter after the warm-up; evaluations play them too, and so does a battery of the run."""
    place = make_place(tmp_path)
    mix = "policies.agent_1={agent_1: 0.2, past:agent_1: 0.8}"
    words = ["training.past_updates=1", "training.past_limit=2", "training.num_updates=2", "evaluation.episodes=8"]
    run_here(place, "run", mix, *words)
    before, after = (
        {episode.players[B] for episode in read_episodes(place / "run" / f"{side}.jsonl")}
        for side in ("before", "after")
    )
    assert before == {B, "past:agent_1@0"}
    assert after <= {B, "past:agent_1@1", "past:agent_1@2"} and len(after) > 1
    folders = past_folders(place / "run", B)
    assert [*folders] == [1, 2]
    _, second = find_team(str(place / "run")).policies
    assert second == {f"frozen:{place / 'run' / B}": 0.2} | {f"frozen:{folder}": 0.4 for folder in folders.values()}


def test_the_memory_of_snapshots_is_foreseen():
    base = ["training.report_to=none", "training.use_cpu=true", "training.max_message_tokens=8"]
    lengths = limits.Lengths(told=8, turns={}, replies={}, heard=0)
    work = [
        memory.work_of(config, setup.training_arguments(config), lengths)
        for config in (load_config([], [*base, *words]) for words in ([], ["policies.agent_1=past:agent_0"]))
    ]
    assert [(of.adapters, of.copies) for of in work] == [(2, 0), (1, 4)]
