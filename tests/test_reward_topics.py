"""Talk is priced for each of the topics of a task, so that an environment of which much must be said has more room."""

import json
from dataclasses import replace

import pytest
from test_reward_terms import talk as told

import envs
from envs.core.episode import Episode
from envs.core.tokens import message_tokens
from envs.scripted.handover import NoteTaker
from envs.scripted.play import play
from envs.scripted.registry import find_partner
from rewards.terms.communication import Communication


def test_talk_is_priced_by_the_topics_of_the_task():
    episode = told(4, 12)
    two = replace(episode, task=replace(episode.task, topics=2))
    assert sum(Communication()(two, "agent_0")) == pytest.approx(-1 / 9)
    assert Communication().spent(two, "agent_0") == 8.0


def test_a_task_of_no_topic_is_refused():
    with pytest.raises(ValueError, match="topics is 0; it must be at least 1"):
        replace(told(4).task, topics=0)


@pytest.mark.parametrize(
    ("env", "topics"),
    [
        (envs.DesignReview(), 1),
        (envs.DesignReview(decisions=3), 5),
        (envs.PairedFunctions(), 1),
        (envs.PairedFunctions(families=["day_format"]), 2),
        (envs.PairedFeatures(), 1),
        (envs.MoonSurvival(), 15),
        (envs.Handover(), 52),
        (envs.Handover(agents=4, probes=1, room=24), 30),
    ],
    ids=lambda env: type(env).__name__,
)
def test_what_the_task_needs_to_be_said_costs_next_to_nothing_and_silence_saves_no_more(env, topics):
    ideal = find_partner("ideal", env)
    episode = play(env, dict.fromkeys(env.seats, ideal), seed=0)
    assert episode.task.topics == topics
    assert all(-0.1 <= sum(Communication()(episode, seat)) <= 0.0 for seat in env.seats)


@pytest.mark.parametrize(
    "env",
    [
        *(envs.DesignReview(decisions=count, agents=agents) for count in (1, 2, 3) for agents in (2, 3)),
        envs.PairedFunctions(families="all"),
        envs.MoonSurvival(),
        envs.MoonSurvival(items=4, renamed=True),
    ],
    ids=lambda env: f"{type(env).__name__} {len(env.make_task(0).decisions)} of {len(env.seats)}",
)
def test_who_tells_what_its_source_claims_is_within_the_allowance(env):
    free = Communication().free_tokens
    for seed in range(60):
        task = env.make_task(seed)
        names = [f"{d.id}: " if len(task.decisions) > 1 else "" for d in task.decisions]
        for seat in task.seats:
            told = [name + d.told(seat) for name, d in zip(names, task.decisions, strict=True)]
            assert sum(map(message_tokens, told)) <= free * task.topics


class Packer(NoteTaker):
    """Writes two facts into each entry, which takes fewer tokens, and finds both in what it reads."""

    def reply(self, env, seat):
        words = super().reply(env, seat).replace("Write ", "").replace(":", "").split("\n")
        return (
            "\n".join(map("Write: {} {}".format, words[::2], words[1::2]))
            if env.first_talk
            else super().reply(env, seat)
        )

    def answer(self, env, seat, decision, rng):
        read = " ".join(entry.text for entry in env.delivered(seat))
        return f"Answer {decision.id}: {read.partition(decision.id)[2].split()[0]}"


def test_who_packs_several_facts_into_an_entry_of_the_memory_earns_no_more_than_who_writes_one():
    env = envs.Handover()
    honest, packed = (play(env, dict.fromkeys(env.seats, player), seed=0) for player in (NoteTaker(), Packer()))
    assert packed.outcome.success and packed.turns[0].memory_tokens < honest.turns[0].memory_tokens
    assert sum(Communication()(packed, "agent_0")) <= sum(Communication()(honest, "agent_0"))


def test_a_record_from_before_there_were_topics_is_scored_as_it_was():
    fields = json.loads(told(4, 12).to_json())
    assert fields["task"].pop("topics") == 1
    assert sum(Communication()(Episode.from_json(json.dumps(fields)), "agent_0")) == pytest.approx(-1 / 3)
