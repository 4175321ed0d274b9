"""The demonstrator: what the warm-up learns from shows the form of replies and no choice."""

import re
from collections import Counter

import numpy as np
import pytest
from played import episodes, other

from envs.core.env import SEATS
from envs.core.episode import ActKind, Phase
from envs.design_review import DesignReview
from envs.moon_survival import MoonSurvival
from envs.paired_features.env import PairedFeatures
from envs.paired_functions import PairedFunctions
from envs.scripted.demonstrator import Demonstrator


def test_a_demonstrator_shows_every_choice_equally_often():
    env = DesignReview(cells={"both_right": 0, "both_wrong": 0})
    demonstrator = Demonstrator(np.random.default_rng(1))
    kinds = Counter()
    for episode in episodes(env, demonstrator, 600):
        (decision,) = episode.task.decisions
        for seat in SEATS:
            final = episode.final(seat, decision.id).option
            kinds[{decision.belief[seat]: "own", decision.belief[other(seat)]: "partner"}.get(final, "blend")] += 1
    assert all(abs(kinds[kind] / 1200 - 1 / 3) < 0.04 for kind in ("own", "partner", "blend")), kinds


@pytest.mark.parametrize(
    "env",
    [
        PairedFunctions(agents=1),
        PairedFeatures(agents=1, order="simultaneous", scaffold=True),
        DesignReview(agents=1),
        MoonSurvival(agents=1, items=4),
    ],
    ids=lambda env: type(env).__name__,
)
def test_a_demonstrator_alone_brings_both_sources_to_mind_and_chooses_either_as_often(env):
    chosen, last = Counter(), Counter()
    for episode in episodes(env, Demonstrator(np.random.default_rng(8)), 120):
        (seat,) = episode.seats
        final = next(turn for turn in episode.turns if turn.phase is Phase.FINAL)
        assert "Your reliable source" not in final.observation  # which would be the choice
        for decision, line in zip(episode.task.decisions, final.reply.splitlines(), strict=False):
            (one, good), (other, bad) = decision.read
            assert line == f"The first is {good}: {one}. The second is {bad}: {other}."
            if decision.is_estimate:
                continue
            assert {good, bad} == {"reliable", "doubtful"} and decision.belief[seat] in (one, other)
            if one != other:
                chosen[episode.prior(seat, decision.id).option == decision.belief[seat]] += 1
                option = episode.final(seat, decision.id).option
                last["best" if option == decision.belief[seat] else "other" if option in (one, other) else "blend"] += 1
    assert abs(chosen[True] / chosen.total() - 0.5) < 0.15, chosen
    assert last["best"] < 0.5 * last.total() and last["other"] > 0.2 * last.total(), last


def test_in_a_team_a_demonstrator_tells_how_good_its_source_is_and_brings_to_mind_the_reliable_one_of_its_partners():
    env = DesignReview(agents=4, confidences=False)
    found = Counter()
    for episode in episodes(env, Demonstrator(np.random.default_rng(6)), 60):
        (decision,) = episode.task.decisions
        messages = {turn.agent: turn.message for turn in episode.turns if turn.phase is Phase.TALK}
        for turn in (turn for turn in episode.turns if turn.phase is Phase.FINAL):
            told = [seat for seat in messages if seat != turn.agent]
            told.sort(key=lambda seat: decision.quality(seat) != "reliable")  # which keeps the order otherwise
            own = f"Mine is {decision.quality(turn.agent)}: {decision.belief[turn.agent]}."
            theirs = f"Theirs is {decision.quality(told[0])}: {decision.belief[told[0]]}."
            assert turn.reply.splitlines()[0] == f"{own} {theirs}"
            found[decision.quality(told[0])] += 1
    assert found == {"reliable": 180, "doubtful": 60}  # it is one seat of four that has the reliable one


def test_in_a_team_a_demonstrator_ends_as_often_on_what_it_brings_to_mind_as_on_its_own_where_they_differ():
    env = DesignReview(agents=4, cells={"both_right": 0, "both_wrong": 0}, confidences=False)
    kinds = Counter()
    for episode in episodes(env, Demonstrator(np.random.default_rng(7)), 300):
        (decision,) = episode.task.decisions
        for turn in (turn for turn in episode.turns if turn.phase is Phase.FINAL):
            said = re.findall(r" is \w+: ([^.]+)\.", turn.reply.splitlines()[0])
            if len(set(said)) == 2:
                final = episode.final(turn.agent, decision.id).option
                kinds["own" if final == said[0] else "other" if final == said[1] else "blend"] += 1
    total = sum(kinds.values())
    assert total > 400 and all(abs(kinds[k] / total - 1 / 3) < 0.06 for k in ("own", "other", "blend")), kinds


def test_a_demonstrators_code_realises_the_option_that_it_answers():
    env = PairedFunctions()
    for episode in episodes(env, Demonstrator(np.random.default_rng(2)), 40):
        (decision,) = episode.task.decisions
        for seat in SEATS:
            assert episode.committed(seat, decision.id) == episode.final(seat, decision.id).option


def test_a_demonstrator_varies_confidence_and_wording():
    demonstrator = Demonstrator(np.random.default_rng(3))
    all_episodes = episodes(DesignReview(), demonstrator, 200)
    priors = {e.prior(s, e.task.decisions[0].id).confidence for e in all_episodes for s in SEATS}
    assert priors == {0.5, 0.6, 0.7, 0.8, 0.9, 1.0}
    messages = [(t.message, e.task.decisions[0].belief[t.agent]) for e in all_episodes for t in e.turns if t.message]
    assert len({len(message.split()) - len(belief.split()) for message, belief in messages}) >= 4
    assert all(belief in message for message, belief in messages)


def test_a_demonstrator_shows_every_act_and_still_every_choice_equally_often():
    env = DesignReview(acts=True, rounds=2, cells={"both_right": 0, "both_wrong": 0})
    acts, chosen, expected = Counter(), Counter(), Counter()
    for episode in episodes(env, Demonstrator(np.random.default_rng(4)), 400):
        (decision,) = episode.task.decisions
        for turn in episode.turns:
            acts.update(act.kind for act in turn.acts)
            names = {decision.belief[turn.agent]: "own", decision.belief[other(turn.agent)]: "partner"}
            if turn.phase is Phase.FINAL:
                chosen[names.get(turn.stances[0].option, "blend")] += 1
                expected[names.get(turn.acts[0].option, "blend")] += 1
            if turn.phase is Phase.TALK:
                told = {act.option for act in turn.acts if act.option and act.kind is not ActKind.CONCEDE}
                assert told <= {decision.belief[turn.agent]}
    for counts in (chosen, expected):
        assert all(abs(counts[name] / 800 - 1 / 3) < 0.05 for name in ("own", "partner", "blend")), counts
    assert acts.pop(ActKind.EXPECT) == 800
    assert len(acts) == 7 and max(acts.values()) < 1.5 * min(acts.values())


def test_a_demonstrators_messages_are_acts_only_where_acts_are_read():
    for acts in (False, True):
        env = DesignReview(acts=acts, rounds=2)
        played = episodes(env, Demonstrator(np.random.default_rng(5)), 40)
        text = "\n".join(turn.reply for episode in played for turn in episode.turns)
        assert ("Commit:" in text, "Expect:" in text) == (acts, acts)
