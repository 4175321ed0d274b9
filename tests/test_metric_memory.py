"""Metrics of the shared memory, on episodes of Handover whose figures are known."""

import pytest

from envs.core.episode import Phase
from envs.design_review import DesignReview
from envs.handover.env import Handover
from envs.scripted.base import Calibrated
from envs.scripted.handover import NoteTaker
from envs.scripted.play import play
from rewards.metrics import measure
from rewards.metrics.memory import (
    memory_compression,
    memory_poison_rate,
    memory_recall,
    memory_staleness,
    memory_write_precision,
)
from rewards.metrics.outcomes import silence_rate

A, B = "agent_0", "agent_1"


class Poisoner(NoteTaker):
    """Reads what agent_0 wrote about what will be asked and writes it anew, wrong. It looks, so that it cannot miss."""

    def reply(self, env, seat):
        keys = [d.id for d in env.task.decisions if d.expert == A]
        if env.phase is Phase.TALK and not env.first_talk:
            return "\n".join(
                [f"Write {key}: 99" for key in keys] if env.last_talk else [f"Query: {key}" for key in keys]
            )
        return super().reply(env, seat)


def step(env, **replies):
    """One step; a seat that is not named says nothing."""
    observations, *_ = env.step(dict.fromkeys(env.agents, "PASS") | replies)
    return observations


def ideal(env, seed=0):
    return play(env, dict.fromkeys(env.possible_agents, NoteTaker()), seed)


def test_the_metrics_of_ideal_play():
    episodes = [ideal(Handover(), seed) for seed in range(3)]
    metrics = measure(episodes)
    found = {name: (metric.value, metric.n) for name, metric in metrics.items() if name.startswith("memory_")}
    assert found == {
        "memory_tokens_per_episode": (364.0, 3),
        "memory_recall": (1.0, 12),
        "memory_staleness": (0.0, 12),
        "memory_conflict_lead": (None, 0),
        "memory_compression": (1.0, 3 * 336),
        "memory_write_precision": (pytest.approx(4 / 48), 144),
        "memory_poison_rate": (None, 0),
    }
    assert metrics["silence_rate"].value == 0  # who writes down is not silent
    assert metrics["worth_team"].value == 1  # a seat stands by its own facts, which it is not asked for


def test_without_a_memory_its_metrics_are_not_defined():
    metrics = measure([play(DesignReview(), dict.fromkeys((A, B), Calibrated()), 0)])
    assert all(metric.n == 0 for name, metric in metrics.items() if name.startswith("memory_"))


def test_a_seat_that_never_names_its_facts_is_silent_whatever_else_it_writes():
    env = Handover()
    env.reset(seed=0)
    facts = [f"Write {d.id}: {d.belief[A]}" for d in env.task.decisions if A in d.belief]
    while env.agents:
        notes = ("\n".join(facts), "Write: something") if env.first_talk else ("Query: something", "PASS")
        step(env, agent_0=notes[0], agent_1=notes[1])
    assert 0 < len(facts) < 4
    assert silence_rate(env.episode) == (4.0 - len(facts), 4)
    assert memory_recall(env.episode) == (0.0, 4)


def test_reading_a_version_is_stale_once_it_has_been_replaced():
    env = Handover(rounds=4)
    env.reset(seed=0)
    step(env, agent_0="Write mail_port: 47")
    step(env, agent_1="Query: mail_port")
    step(env, agent_0="Write mail_port: 48")
    step(env, agent_0="Query: mail_port", agent_1="Write: unread")
    step(env)
    assert [entry.clock for entry in env.episode.outcome.memory] == [0, 2, 3]
    assert (env.episode.turns_of(B)[1].reads, env.episode.turns_of(A)[3].reads) == ((0,), (1, 0))
    assert memory_staleness(env.episode) == (1.0, 3)  # the third reading alone
    assert memory_write_precision(env.episode) == (2.0, 3)


def test_compression_is_what_was_written_for_each_live_token():
    env = Handover(memory_budget=60, rounds=2)
    env.reset(seed=0)
    step(env, agent_0="\n".join(f"Write: note {i} of the day" for i in range(12)))
    step(env)
    step(env)
    memory = env.episode.outcome.memory
    rate = memory_compression(env.episode)
    assert rate.numerator == 12 * 10 and rate.denominator <= 60 and any(entry.level for entry in memory)
    assert memory_write_precision(env.episode) == (0.0, 12)  # nobody asked for the summaries


@pytest.mark.parametrize(("careful", "poisoned"), [(True, 0.0), (False, 1.0)])
def test_a_reader_that_looks_at_authors_and_versions_is_not_poisoned(careful, poisoned):
    env = Handover(agents=3, facts=48, probes=1, room=24, rounds=3)
    reader = NoteTaker(careful=careful)
    for seed in range(5):
        episode = play(env, {A: reader, B: reader, "agent_2": Poisoner()}, seed)
        (key,) = [d for d in episode.task.decisions if d.expert == A]
        assert memory_poison_rate(episode) == (poisoned, 1)
        assert episode.committed(B, key.id) == (key.best if careful else "99")


def test_a_slip_of_the_expert_itself_is_no_poison():
    env = Handover()
    env.reset(seed=0)
    keys = [d.id for d in env.asked(B)]
    step(env, agent_0="\n".join(f"Write {key}: 99" for key in keys))
    step(env, agent_1="\n".join(f"Query: {key}" for key in keys))
    step(env, agent_1="\n".join(f"Answer {key}: 99" for key in keys))
    assert memory_poison_rate(env.episode) == (0.0, 0) and memory_recall(env.episode) == (0.0, 4)
