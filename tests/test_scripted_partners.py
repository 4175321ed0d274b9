"""What each partner of the cast does, in every environment that it can play."""

import doctest

import pytest

import envs
from envs.core import posterior
from envs.core.config import EnvConfig
from envs.core.episode import ActKind, Phase
from envs.scripted import registry
from envs.scripted.base import Calibrated
from envs.scripted.partners import PARTNERS
from envs.scripted.play import play, replay
from envs.scripted.registry import find_partner, partners_of
from rewards.metrics import rates

A, B = "agent_0", "agent_1"
EPISODES = range(60)
GAMES = [
    ("PairedFunctions", {}, 12),
    ("PairedFunctions", {"families": "all", "rounds": 2, "acts": True}, 12),
    *(("DesignReview", {"agents": n, "decisions": 2}, 4) for n in (1, 2, 3, 8)),
    *(("DesignReview", {"agents": n, "rounds": 2, "acts": True}, 4) for n in (1, 2, 5)),
    ("PairedFeatures", {}, 2),
    ("PairedFeatures", {"acts": True, "forecast": True, "rounds": 3}, 2),
    ("PairedFeatures", {"rounds": 1, "order": "alternating"}, 2),
    ("MoonSurvival", {}, 2),
    *(("MoonSurvival", {"agents": n, "items": 5, "renamed": True}, 2) for n in (1, 3, 8)),
    ("MoonSurvival", {"items": 5, "rounds": 2, "acts": True}, 2),
    ("Handover", {}, 2),
    ("Handover", {"agents": 4, "probes": 1, "room": 24, "confidences": False}, 2),
]


def played(name, environment="DesignReview", partner=None, **options):
    env = envs.make(environment, **options)
    return [play(env, {A: partner or Calibrated(), B: PARTNERS[name]()}, seed=seed) for seed in EPISODES]


def right(episode, seat=B):
    return all(d.is_right(episode.committed(seat, d.id)) for d in episode.task.decisions)


@pytest.mark.parametrize(("environment", "options", "episodes"), GAMES, ids=str)
def test_all_that_can_play_an_environment_keep_its_grammar_and_play_again_the_same(environment, options, episodes):
    env, again = envs.make(environment, **options), envs.make(environment, **options)
    for name in partners_of(env):
        for others in ("ideal", name):
            for seed in range(episodes):
                team = {seat: find_partner(name if seat == env.seats[-1] else others, env) for seat in env.seats}
                episode = play(env, team, seed)
                assert [turn.reply for turn in episode.turns if turn.parse_error is not None] == []
                assert replay(again, episode) == episode
                if not seed:
                    team = {seat: find_partner(name if seat == env.seats[-1] else others, env) for seat in env.seats}
                    assert play(env, team, seed) == episode


@pytest.mark.parametrize("environment", ["DesignReview", "PairedFunctions", "PairedFeatures", "MoonSurvival"])
def test_the_whole_cast_plays_what_it_knows_the_odds_of(environment):
    assert partners_of(envs.make(environment)) == PARTNERS


def test_an_environment_without_odds_has_no_cast_and_says_who_else_could_play():
    env = envs.make("DesignReview")
    env.reset(seed=0)
    env.config = EnvConfig()
    assert partners_of(env) == {}
    with pytest.raises(ValueError, match="'scripted:echo' cannot play DesignReview; none of envs.scripted can"):
        find_partner("echo", env)
    with pytest.raises(ValueError, match="DesignReview does not say how likely its options are right"):
        Calibrated().reply(env, A)


def test_in_a_handover_the_cast_helps_by_its_notes():
    env = envs.make("Handover")

    def share(name):
        """The share of agent_0's answers that are right beside a partner."""
        right = []
        for seed in range(10):
            episode = play(env, {A: find_partner("ideal", env), B: find_partner(name, env)}, seed)
            right += [d.is_right(episode.committed(A, d.id)) for d in episode.task.decisions if d.expert == B]
        return sum(right) / len(right)

    assert (share("ideal"), share("oracle"), share("saboteur")) == (1, 1, 0)
    assert share("silent") < 0.2  # a guess


def test_an_oracle_of_a_handover_is_right_beside_a_saboteur():
    env = envs.make("Handover")
    episode = play(env, {A: find_partner("oracle", env), B: find_partner("saboteur", env)}, 0)
    assert all(d.is_right(episode.committed(A, d.id)) for d in episode.task.decisions)


def test_the_examples_in_the_docstrings_run():
    for module in (registry, posterior):
        assert doctest.testmod(module).failed == 0 < doctest.testmod(module).attempted


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
        assert posterior.named_option([mine[2].message], decision) != decision.belief[B]
        assert mine[3].stances[0].option != honest[3].stances[0].option


@pytest.mark.parametrize("environment", ["DesignReview", "PairedFunctions"])
def test_a_placebo_says_as_much_as_the_ideal_partner_and_names_no_option(environment):
    for episode, ideal in zip(played("placebo", environment), played("ideal", environment), strict=True):
        words, content = ([turn.message_tokens for turn in record.turns_of(B)] for record in (episode, ideal))
        assert words == content
        (decision,) = episode.task.decisions
        assert posterior.named_option([turn.message for turn in episode.turns_of(B)], decision) is None


def test_a_saboteur_talks_like_the_ideal_and_does_otherwise():
    for episode, ideal in zip(
        played("saboteur", acts=True, rounds=2), played("ideal", acts=True, rounds=2), strict=True
    ):
        assert [t.reply for t in episode.turns_of(B)[:-1]] == [t.reply for t in ideal.turns_of(B)[:-1]]
        (decision,) = episode.task.decisions
        assert episode.committed(B, decision.id) != ideal.committed(B, decision.id)


def test_a_saboteur_builds_something_else_than_it_says():
    env = envs.make("PairedFeatures", acts=True)
    for seed in range(6):
        false, honest = (play(env, {A: Calibrated(), B: PARTNERS[name]()}, seed=seed) for name in ("saboteur", "ideal"))
        (decision,) = honest.task.decisions
        assert [turn.message for turn in false.turns] == [turn.message for turn in honest.turns]
        assert false.committed(B, decision.id) != honest.committed(B, decision.id)


@pytest.mark.parametrize("environment", ["DesignReview", "PairedFeatures"])
def test_who_flips_at_half_time_is_ideal_before_acts_included(environment):
    options = {"acts": True, "rounds": 2}
    env, promises = envs.make(environment, **options), 0
    for seed in range(12):
        flipped, ideal = (
            play(env, {A: Calibrated(), B: PARTNERS[name]()}, seed=seed) for name in ("flips-at-half-time", "ideal")
        )
        mine, honest = flipped.turns_of(B), ideal.turns_of(B)
        assert [turn.reply for turn in mine[:2]] == [turn.reply for turn in honest[:2]]
        promises += any(act.kind is ActKind.COMMIT for act in mine[1].acts)
        (decision,) = flipped.task.decisions
        assert flipped.committed(B, decision.id) != ideal.committed(B, decision.id)
    assert promises


def test_in_a_team_only_the_reliable_source_is_called_so():
    env = envs.make("DesignReview", agents=3)
    episode = play(env, dict.fromkeys(env.seats, Calibrated()), 0)
    (decision,) = episode.task.decisions
    for seat in env.seats:
        said = " ".join(turn.message for turn in episode.turns_of(seat)).strip()
        assert said == decision.belief[seat] + (" reliable" if decision.expert == seat else "")
