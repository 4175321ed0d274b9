"""What seats are told: the system message, how short a brief is, what a scaffold gives before a reply."""

import re
from dataclasses import replace

import pytest

import envs
from envs.core import prompts
from envs.core.env import SEATS, CoopEnv
from envs.design_review import DesignReview
from envs.paired_functions import PairedFunctions
from envs.scripted.exploits import NeverDefer
from envs.scripted.play import play


def before_the_last_reply(env: CoopEnv) -> dict[str, str]:
    """What the seats are told then, where both have said hello since their briefs."""
    for _ in range(2):
        observations, *_ = env.step(dict.fromkeys(SEATS, "Hello."))
    return observations


@pytest.mark.parametrize("env_class", [DesignReview, PairedFunctions])
def test_a_brief_and_its_reply_format_have_at_most_65_words(env_class):
    env = env_class()
    for seed in range(300):
        observations, _ = env.reset(seed=seed)
        assert max(len(text.split()) for text in observations.values()) <= 65


def test_the_scaffold_repeats_what_the_brief_said_and_gives_the_code_with_a_gap():
    env = PairedFunctions(families=["offset"], scaffold=True)
    env.reset(seed=4)
    decision, quality = env.task.decisions[0], {"strong": "reliable", "weak": "doubtful"}
    observations = before_the_last_reply(env)
    for seat in SEATS:
        heard, recalled, act = observations[seat].split("\n")
        assert heard == "Partner: Hello."
        assert recalled == f"Your {quality[decision.cue[seat]]} source: {decision.belief[seat]}"
        code = act.removeprefix("Answer again, then fill in: ")
        assert code.replace("___", decision.best) == env.reference_work(seat, decision.best)


@pytest.mark.parametrize("family", ["offset", "page_size", "capacity"])  # the last is an estimate
def test_the_named_scaffold_repeats_the_source_by_the_name_of_the_brief_and_the_gap_alone_repeats_none(family):
    for scaffold in ("named", "gap"):
        env = PairedFunctions(families=[family], scaffold=scaffold)
        env.reset(seed=4)
        (decision,) = env.task.decisions
        observations = before_the_last_reply(env)
        for seat in SEATS:
            name, told = re.search("Your source, (.+), (?:says|measured) (.+)[.]", env.task.briefs[seat]).groups()
            assert told == decision.told(seat)
            heard, *recalled, act = observations[seat].split("\n")
            assert heard == "Partner: Hello."
            assert recalled == ([f"Your source, {name}: {told}"] if scaffold == "named" else [])
            assert prompts.GAP in act and not re.search("reliable|doubtful", observations[seat])


def test_the_named_scaffold_repeats_a_claim_whose_brief_names_no_source():
    env = PairedFunctions(families=["offset"], scaffold="named")
    env.reset(seed=4)
    task = replace(env.task, decisions=(replace(env.task.decisions[0], source={}),))
    env.reset(options={"task": task})
    observations = before_the_last_reply(env)
    assert f"\nYour source: {task.decisions[0].belief['agent_0']}\n" in observations["agent_0"]


def test_in_a_team_the_scaffold_repeats_the_own_source_before_a_message_too_and_to_a_pair_it_does_not():
    for agents in (2, 4):
        env = DesignReview(agents=agents, scaffold=True)
        env.reset(seed=1)
        (decision,) = env.task.decisions
        said = dict.fromkeys(env.seats, f"Answer: {decision.best} (80%)")
        before_talk, *_ = env.step(said)
        before_last, *_ = env.step(dict.fromkeys(env.seats, "PASS"))
        for seat in env.seats:
            own = f"Your {decision.quality(seat)} source: {decision.belief[seat]}"
            assert (own in before_talk[seat]) == (agents == 4) and own in before_last[seat]


def test_no_confidence_is_asked_for_where_none_is_wanted():
    env = DesignReview(confidences=False)
    observations, _ = env.reset(seed=0)
    assert all(o.endswith("Reply: Answer: <option>") for o in observations.values())
    episode = play(env, {seat: NeverDefer() for seat in SEATS}, seed=0)
    assert not any("%" in turn.reply for turn in episode.turns)
    assert episode.final("agent_0", env.task.decisions[0].id).confidence == 1


@pytest.mark.parametrize(
    ("name", "given", "told"),
    [
        ("PairedFunctions", {}, "You and a partner write one module."),
        ("PairedFeatures", {}, "You and a partner build two features of one package."),
        ("DesignReview", {"agents": 1}, "You review one change."),
        ("DesignReview", {"agents": 3}, "You and 2 partners review one change."),
        ("MoonSurvival", {}, "You and a partner rank what is left after a crash on the moon."),
        ("Handover", {}, "You and a partner set up one system."),
        ("Handover", {"system_prompt": "Take turns."}, "Take turns."),
    ],
)
def test_every_environment_has_one_system_message_for_each_size_of_team_and_a_key_for_another(name, given, told):
    assert envs.make(name, **given).system_prompt == told
