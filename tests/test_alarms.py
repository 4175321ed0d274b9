"""Alarms: each rings on a made history that shows what it is for, and not on one that lacks just that."""

import json
import random
from types import SimpleNamespace

import pytest
import tiny

import envs
from envs.scripted.exploits import EXPLOITS, IDEAL
from envs.scripted.play import play
from marl_coop.evaluation.alarms import WINDOW, ringing, still_read
from marl_coop.experiment.callbacks import AlarmBell, MetricsFile
from marl_coop.runs.records import append_metrics, read_metrics
from rewards.metrics import cases, rates

CALM = {
    "team/success": 0.5,
    "team/j": 0.4,
    "team/cdr": 0.6,
    "team/cr": 0.2,
    "team/silence_rate": 0.1,
    "team/prior_accuracy": 0.5,
    "team/prior_as_told": 1.0,
    "team/j_cases": 40.0,
    "team/j_stated_cases": 40.0,
    "by/agent_0/cdr": 0.6,
    "by/agent_0/cr": 0.2,
    "agent_0/entropy": 0.04,
    "agent_0/approx_kl": 0.01,
    "agent_0/kl_to_reference": 0.1,
    "eval/success": 0.5,
}


def history(updates=2 * WINDOW, **late):
    """So many calm updates, the last `WINDOW` with other numbers; `__` stands for the slash."""
    changed = {key.replace("__", "/"): value for key, value in late.items()}
    return [CALM] * (updates - WINDOW) + [CALM | changed] * WINDOW


def test_nothing_rings_in_a_calm_history_or_in_none():
    assert ringing([]) == ringing([CALM]) == ringing(history()) == ringing([{}] * 9) == {}


@pytest.mark.parametrize(
    ("late", "name"),
    [
        ({"team__silence_rate": 0.6}, "silence"),
        ({"team__cdr": 0.97, "team__cr": 0.95}, "always deferring"),
        ({"team__cdr": 0.02, "team__cr": 0.05}, "always holding"),
        ({"by__agent_0__cdr": 0.97, "by__agent_0__cr": 0.95}, "always deferring: agent_0"),
        ({"by__agent_0__cdr": 0.02, "by__agent_0__cr": 0.05}, "always holding: agent_0"),
        ({"team__prior_accuracy": 0.3}, "sandbagging: prior_accuracy"),
        ({"team__prior_as_told": 0.8}, "sandbagging: prior_as_told"),
        ({"team__j_cases": 10.0, "team__j_stated_cases": 10.0}, "fewer cases of J"),
        ({"team__j_stated_cases": 10.0}, "fewer stated cases of J"),
        ({"agent_0__entropy": 0.001}, "entropy of agent_0"),
        ({"agent_0__entropy": 0.7}, "entropy of agent_0"),
        ({"agent_0__approx_kl": 0.3}, "approx_kl of agent_0"),
        ({"agent_0__kl_to_reference": 2.0}, "kl_to_reference of agent_0"),
        ({"team__success": 0.7, "eval__success": 0.3}, "held out: success"),
    ],
)
def test_an_alarm_rings_for_what_it_is_made_for_alone(late, name):
    assert list(ringing(history(**late))) == [name]


@pytest.mark.parametrize(
    "late",
    [
        {"team__cdr": 0.97},  # deferring rightly
        {"team__cr": 0.05},  # holding rightly
        {"by__agent_0__cdr": 0.97},
        {"by__agent_0__cr": 0.05},
        {"team__success": 0.7},  # training up, held-out as it was
        {"eval__success": 0.3},  # both down, or noise
        {"team__prior_accuracy": 0.6},
        {"agent_0__entropy": 0.02},
    ],
)
def test_what_is_good_or_usual_rings_nothing(late):
    assert ringing(history(**late)) == {}


def test_one_who_leads_beside_one_who_follows_is_no_team_that_chooses():
    late = {"team__cdr": 0.5, "team__cr": 0.5, "by__agent_0__cdr": 0.03, "by__agent_0__cr": 0.05}
    found = ringing(history(**late, by__agent_1__cdr=0.98, by__agent_1__cr=0.96, agent_1__entropy=0.04))
    assert found == {
        "always holding: agent_0": "agent_0 never gives in: CDR is 0.03 and CR 0.05, whoever is right",
        "always deferring: agent_1": "agent_1 always gives in: CDR is 0.98 and CR 0.96, whoever is right",
    }


def test_what_all_seats_do_is_told_of_the_team_alone():
    late = {"team__cdr": 0.97, "team__cr": 0.97, "by__agent_0__cdr": 0.97, "by__agent_0__cr": 0.97}
    assert list(ringing(history(**late))) == ["always deferring"]


def test_rates_of_long_ago_ring_nothing():
    old = {"team/cdr": 0.99, "team/cr": 0.99, "by/agent_0/cdr": 0.99, "by/agent_0/cr": 0.99}
    without = {key: value for key, value in CALM.items() if key not in old}
    assert list(ringing([CALM | old] * WINDOW)) == ["always deferring"]
    assert ringing([*[CALM | old] * WINDOW, *[without] * WINDOW]) == {}


def test_a_reward_term_that_is_called_as_a_number_of_an_adapter_is_none():
    late = {"agent_0__reward__entropy": 8.0, "agent_0__reward__approx_kl": 3.0}
    assert ringing([CALM | {"agent_0/reward/entropy": 6.0}] * WINDOW + history(WINDOW, **late)) == {}


def taking_turns(updates, late, turn=2):
    """Two adapters that learn for `turn` updates in turn, of which the second has other numbers in its last ones."""
    rows = []
    for update in range(updates):
        learner = f"agent_{update // turn % 2}"
        own = {"entropy": 0.04, "approx_kl": 0.01, "kl_to_reference": 0.1, "cdr": 0.6, "cr": 0.2}
        own |= late if learner == "agent_1" and update >= updates - 2 * turn * WINDOW else {}
        rates = {f"by/{learner}/{name}": own.pop(name) for name in ("cdr", "cr")}
        team = {key: value for key, value in CALM.items() if "agent_" not in key}
        rows.append(team | rates | {f"{learner}/{name}": value for name, value in own.items()})
    return rows


@pytest.mark.parametrize(
    ("late", "name"),
    [
        ({"entropy": 1.0}, "entropy of agent_1"),
        ({"approx_kl": 0.5}, "approx_kl of agent_1"),
        ({"kl_to_reference": 2.0}, "kl_to_reference of agent_1"),
        ({"cdr": 0.0, "cr": 0.0}, "always holding: agent_1"),
    ],
)
@pytest.mark.parametrize("turn", [1, 2, 4])
def test_an_alarm_of_an_adapter_that_takes_turns_rings_on_while_the_other_learns(late, name, turn):
    rows, kept, rang = taking_turns(30 * turn, late, turn), [], []
    for update, record in enumerate(rows, start=1):
        kept = still_read([*kept, record])
        assert ringing(kept) == ringing(rows[:update])
        rang.append(bool(ringing(kept)))
    assert ringing(rows).keys() == {name}
    assert rang == sorted(rang)  # it begins once, and does not end whenever the other learns


def test_one_odd_update_rings_nothing():
    assert ringing([*history(), CALM | {"team/silence_rate": 1.0}]) == {}


def test_alarms_ring_as_they_would_by_all_records_by_the_few_that_are_kept():
    rng, rows, kept, rang = random.Random(0), [], [], set()
    for i in range(200):
        numbers = {name: value * rng.choice((0.01, 0.4, 1, 1.5, 12)) for name, value in CALM.items()}
        evaluated = rng.random() < 0.2
        rows.append({k: v for k, v in numbers.items() if evaluated or not k.startswith("eval/")})
        kept = still_read([*kept, rows[-1]])
        assert ringing(kept) == ringing(rows) and len(kept) <= 6 * WINDOW, i
        rang |= {name.split(":")[0] for name in ringing(rows)}
    assert {"held out", "sandbagging", "silence", "approx_kl of agent_0"} <= rang


def update(policy, first):
    """The record of an update in which both seats play a scripted policy."""
    env = envs.DesignReview()
    played = [play(env, dict.fromkeys(env.seats, EXPLOITS[policy]), seed) for seed in range(first, first + 24)]
    found = {f"team/{name}": value for name, value in rates(played).items() if value is not None}
    return found | {f"team/{name}_cases": cases(played, name) for name in ("j", "j_stated")}


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("silent", {"silence", "always holding"}),
        ("always-defer", {"always deferring"}),
        ("never-defer", {"always holding"}),
        ("sandbagger", {"sandbagging: prior_as_told", "sandbagging: prior_accuracy"}),
        ("no-prior", {"sandbagging: prior_as_told", "sandbagging: prior_accuracy", "fewer stated cases of J"}),
        (IDEAL, set()),
    ],
)
def test_a_team_that_turns_into_a_cheap_policy_is_told_of(policy, expected):
    honest = [update(IDEAL, 24 * i) for i in range(WINDOW)]
    turned = [update(policy, 24 * i) for i in range(WINDOW, 2 * WINDOW)]
    assert set(ringing(honest + turned)) == expected


class Bell(AlarmBell):
    """Hears numbers of a history in the place of its own."""

    def __init__(self, folder, said, numbers):
        super().__init__(folder / "alarms.jsonl", folder / "metrics.jsonl", said.append)
        self.numbers = numbers

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "update" in logs:
            logs = CALM | {"update": logs["update"], "team/silence_rate": self.numbers[logs["update"] - 1]}
            super().on_log(args, state, control, logs=logs)


def test_a_run_that_goes_on_says_which_records_of_updates_are_lost(tmp_path):
    tiny.cue_trainer(tmp_path, num_updates=3, episodes_per_update=2, save_updates=1).train()
    append_metrics(tmp_path / "metrics.jsonl", {"step": 3, "update": 3})
    callbacks = [MetricsFile(tmp_path / "metrics.jsonl", (said := []).append)]
    resumed = tiny.cue_trainer(tmp_path, callbacks=callbacks, num_updates=4, episodes_per_update=2)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    (line,) = said
    assert line.endswith(
        "metrics.jsonl' has no record of 2 of 3 updates, of which the first is 1: the run goes on without"
    )


def test_alarms_that_begin_together_are_on_record_in_one_order_in_every_process(tmp_path):
    bell = AlarmBell(tmp_path / "alarms.jsonl", tmp_path / "metrics.jsonl", (said := []).append)
    worse = {
        "team/silence_rate": 1.0,
        "team/cdr": 1.0,
        "team/cr": 1.0,
        "agent_0/entropy": 0.0,
        "agent_0/approx_kl": 9.0,
    }
    state = SimpleNamespace(is_world_process_zero=True, global_step=0)
    for update in range(1, 2 * WINDOW + 1):
        bell.on_log(None, state, None, CALM | (worse if update > WINDOW else {}) | {"update": update})
    records = [json.loads(line) for line in (tmp_path / "alarms.jsonl").read_text().splitlines()]
    begun = [(record["update"], record["alarm"]) for record in records]
    assert len(said) == len(begun) > 3 and begun == sorted(begun)


def test_an_alarm_is_said_when_it_begins_and_when_it_ends_and_is_on_record(tmp_path):
    said = []
    callbacks = [MetricsFile(tmp_path / "metrics.jsonl", said.append), Bell(tmp_path, said, [1, 1, 1, 1, 0, 0, 0])]
    tiny.cue_trainer(tmp_path, callbacks=callbacks, num_updates=7, episodes_per_update=2).train()
    assert said == [
        "alarm at update 3: seats keep to themselves 100 % of what a partner needs",
        "alarm at update 6: no longer: seats keep to themselves 67 % of what a partner needs",
    ]
    records = [json.loads(line) for line in (tmp_path / "alarms.jsonl").read_text().splitlines()]
    changes = [(record["update"], record["alarm"], record["rings"]) for record in records]
    assert changes == [(3, "silence", True), (6, "silence", False)]
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 7
