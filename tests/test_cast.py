"""What each partner of the cast does, in every environment that it can play."""

import pytest

import envs
from envs.cast import PARTNERS
from envs.episode import Phase
from envs.partners import Calibrated, play
from rewards.metrics import rates

A, B = "agent_0", "agent_1"
EPISODES = range(60)
GAMES = [("PairedFunctions", {}), ("DesignReview", {"decisions": 2}), ("DesignReview", {"rounds": 2, "acts": True})]


def played(name, environment="DesignReview", partner=None, **options):
    env = envs.make(environment, **options)
    return [play(env, {A: partner or Calibrated(), B: PARTNERS[name]()}, seed=seed) for seed in EPISODES]


def right(episode, seat=B):
    return all(d.is_right(episode.committed(seat, d.id)) for d in episode.task.decisions)


@pytest.mark.parametrize("name", PARTNERS)
@pytest.mark.parametrize("environment, options", GAMES)
def test_every_partner_plays_by_the_grammar_and_again_the_same(name, environment, options):
    episodes = played(name, environment, **options)
    assert rates(episodes)["parse_rate"] == 1
    assert played(name, environment, **options) == episodes


def test_an_oracle_is_always_right():
    assert all(map(right, played("oracle", "PairedFunctions")))


@pytest.mark.parametrize("name", ["stubborn-wrong", "persuader"])
def test_who_must_be_wrong_is_wrong_from_first_to_last(name):
    for episode in played(name, "PairedFunctions"):
        (decision,) = episode.task.decisions
        stances = {episode.prior(B, decision.id).option, episode.final(B, decision.id).option}
        assert len(stances) == 1 and not decision.is_right(*stances)
        assert stances.pop() in episode.turns_of(B)[1].message


def test_a_persuader_talks_long_and_never_doubts():
    for episode in played("persuader"):
        assert episode.turns_of(B)[1].message_tokens > 50
        assert all(stance.confidence == 1 for turn in episode.turns_of(B) for stance in turn.stances)


def test_always_agree_takes_what_it_heard_and_says_yes():
    for episode in played("always-agree", rounds=2, partner=PARTNERS["oracle"]()):
        assert right(episode)
        assert episode.turns_of(B)[2].message.startswith("Yes, ")


def test_never_agree_ends_elsewhere_and_says_no():
    for episode in played("never-agree", rounds=2, partner=PARTNERS["oracle"]()):
        assert not right(episode)
        assert episode.turns_of(B)[2].message.startswith("No, ")


def test_the_silent_and_the_echo_of_the_silent_say_nothing():
    for name in ("silent", "echo"):
        episodes = played(name, partner=PARTNERS["silent"](), rounds=2)
        assert not any(turn.message for episode in episodes for turn in episode.turns)


def test_an_echo_says_what_it_heard():
    for episode in played("echo", rounds=2):
        first = next(turn.message for turn in episode.turns_of(A) if turn.phase is Phase.TALK)
        assert [turn.message for turn in episode.turns_of(B)][1:3] == ["", first]


def test_an_averager_meets_in_the_middle():
    episodes = played("averager")
    assert rates(episodes)["blend_rate"] > 0
    assert all(
        episode.final(B, d.id).option in d.blends
        for episode in episodes
        for d in episode.task.decisions
        if len(set(d.belief.values())) == 2
    )


def test_noise_changes_one_choice_in_five_or_fewer():
    ideal, noisy = played("ideal"), played("calibrated-noisy")
    changed = sum(a.turns[-1] != b.turns[-1] for a, b in zip(ideal, noisy, strict=True))
    assert 0 < changed <= 0.3 * len(EPISODES)


def test_the_flip_comes_at_half_time():
    for episode, ideal in zip(played("flips-at-half-time", rounds=2), played("ideal", rounds=2), strict=True):
        mine, honest = episode.turns_of(B), ideal.turns_of(B)
        (decision,) = episode.task.decisions
        assert mine[:2] == honest[:2]  # the stance and the first message
        assert decision.belief[B] not in mine[2].message
        assert mine[3].stances[0].option != honest[3].stances[0].option


def test_a_saboteur_talks_like_the_ideal_and_does_otherwise():
    for episode, ideal in zip(
        played("saboteur", acts=True, rounds=2), played("ideal", acts=True, rounds=2), strict=True
    ):
        assert [t.reply for t in episode.turns_of(B)[:-1]] == [t.reply for t in ideal.turns_of(B)[:-1]]
        (decision,) = episode.task.decisions
        assert episode.committed(B, decision.id) != ideal.committed(B, decision.id)
