"""Acts and what became of the code: what the environments put on the record for the reward terms."""

import doctest

import pytest

from envs.core.env import SEATS
from envs.core.episode import Act, ActKind, Episode, PartTests, Phase, Provenance
from envs.core.tokens import message_tokens
from envs.design_review import DesignReview
from envs.paired_functions import PairedFunctions
from envs.scripted.base import Scripted
from envs.scripted.play import play
from envs.source import provenance


class Holder(Scripted):
    """Sticks to its belief and writes no acts."""

    def decide(self, env, seat, decision):
        return decision.belief[seat], 0.8


BOTH = pytest.mark.parametrize("env_class", [DesignReview, PairedFunctions])


def act_out(env, seed, stance="", talk="", final=""):
    """Play an episode with lines of agent_0's own before its replies; agent_1 sticks to its belief."""
    env.reset(seed=seed)
    own = {Phase.STANCE: stance, Phase.TALK: talk, Phase.FINAL: final}
    option = env.task.decisions[0].options[0]
    heard = {}  # by the phase that comes next
    while env.agents:
        replies = {seat: Holder().reply(env, seat) for seat in SEATS}
        replies["agent_0"] = f"{own[env.phase].format(option)}\n{replies['agent_0']}"
        heard[env.phase], *_ = env.step(replies)
    return env.episode, option, heard


@BOTH
def test_acts_are_on_the_turn_that_made_them_and_survive_json(env_class):
    episode, option, _ = act_out(env_class(acts=True), 3, talk="Propose: {0}\nAsk:", final="Expect: {0} (70%)")
    (name,) = (decision.id for decision in episode.task.decisions)
    propose, ask = Act(kind=ActKind.PROPOSE, decision=name, option=option), Act(kind=ActKind.ASK, decision=name)
    expect = Act(kind=ActKind.EXPECT, decision=name, option=option, confidence=0.7)
    assert [turn.acts for turn in episode.turns_of("agent_0")] == [(), (propose, ask), (expect,)]
    assert [turn.acts for turn in episode.turns_of("agent_1")] == [(), (), ()]
    assert Episode.from_json(episode.to_json()) == episode


@BOTH
def test_an_expectation_never_reaches_the_partner_and_costs_no_tokens(env_class):
    episode, option, heard = act_out(env_class(acts=True), 3, talk="Expect: {0} (70%)")
    spoken = episode.turns_of("agent_0")[1]
    belief = episode.task.decisions[0].belief["agent_0"]
    assert spoken.message == belief and "xpect: " + option not in heard[Phase.FINAL]["agent_1"]
    assert spoken.message_tokens == message_tokens(belief)
    assert [act.kind for act in spoken.acts] == [ActKind.EXPECT]


@BOTH
def test_a_sealed_reply_holds_no_act_but_an_expectation(env_class):
    episode, *_ = act_out(env_class(acts=True), 3, stance="Commit: {0}\nExpect: {0}", final="Retract:")
    stance, _, final = episode.turns_of("agent_0")
    assert [act.kind for act in stance.acts] == [ActKind.EXPECT] and final.acts == ()


@BOTH
def test_a_reply_that_breaks_the_grammar_makes_no_act(env_class):
    env = env_class(acts=True)
    env.reset(seed=0)
    env.step(dict.fromkeys(SEATS, f"Expect: {env.task.decisions[0].options[0]}"))
    env.step(dict.fromkeys(SEATS, "PASS"))
    env.step(dict.fromkeys(SEATS, "PASS"))
    assert all(turn.acts == () for turn in env.episode.turns)


@BOTH
def test_without_the_argument_no_act_is_read_and_every_line_is_the_message(env_class):
    episode, option, heard = act_out(env_class(), 3, talk="Propose: {0}\nExpect: {0}")
    assert all(turn.acts == () for turn in episode.turns)
    assert f"Partner: Propose: {option} Expect: {option} " in heard[Phase.FINAL]["agent_1"]


@BOTH
def test_only_with_the_argument_do_the_prompts_speak_of_acts(env_class):
    said = {}
    for acts in (False, True):
        env = env_class(acts=acts)
        first, _ = env.reset(seed=0)
        said[acts] = [first, *(env.step(dict.fromkeys(SEATS, "PASS"))[0] for _ in range(2))]
    assert said[True][0] == said[False][0]
    for seat in SEATS:
        talk, final = (said[True][i][seat] for i in (1, 2))
        assert talk.startswith(said[False][1][seat]) and "Commit" in talk
        assert "Expect: <option> (<confidence>%)" in final and final.endswith(said[False][2][seat].splitlines()[-1])


def test_a_person_who_reads_the_episode_sees_the_sealed_expectation():
    env = PairedFunctions(acts=True, families=["offset"], render_mode="ansi")
    _, option, _ = act_out(env, 3, final="Expect: {0} (70%)")
    assert f"agent_0 expects offset = {option} (70%)" in env.render()


# provenance and the tests of a part


def test_what_a_name_needs_survives_and_the_rest_was_written_in_vain():
    mine = "import math\nx = 1\ndef help(n): return n + x\ndef f(n): return help(n)\ndef g(n): return n"
    theirs = "# mine\ndef g(n): return n - 1"
    ledger = provenance.provenance({"agent_0": "f", "agent_1": "g"}, {"agent_0": mine, "agent_1": theirs})
    assert ledger == Provenance(
        authored={"agent_0": 2 + 3 + 10 + 11 + 8, "agent_1": 2 + 10},
        surviving={"agent_0": 3 + 10 + 11, "agent_1": 10},
        duplicated=8,  # g, which agent_0 wrote for nothing
    )


@pytest.mark.parametrize(
    ("needed", "surviving"),
    [
        ("x = y = 1", 5),  # one statement, however many names it binds
        ("x, y = 1, 2", 7),
        ("x: int = 3", 5),
        ("import x, y", 4),
        ("x = 1\nx += 1", 3),  # only what binds a name is seen
    ],
)
def test_a_statement_that_is_needed_survives_once(needed, surviving):
    work = f"{needed}\n@cache\ndef f(n): return n + x + y"
    ledger = provenance.provenance({"agent_0": "f"}, {"agent_0": work})
    assert ledger.surviving == {"agent_0": surviving + 2 + 12}


def test_a_helper_of_the_same_name_in_both_parts_is_no_duplicate():
    work = {"agent_0": "x = 1\ndef f(): return x", "agent_1": "x = 2\ndef g(): return x"}
    assert provenance.provenance({"agent_0": "f", "agent_1": "g"}, work).duplicated == 0


@pytest.mark.parametrize("text", ["def f(:", "\0", "\ud800", "-" * 60_000 + "1", "x=" + "1+" * 30_000 + "1", ""])
def test_text_that_is_no_python_survives_nowhere_and_raises_nothing(text):
    ledger = provenance.provenance({"agent_0": "f"}, {"agent_0": text})
    assert (ledger.surviving, ledger.duplicated) == ({"agent_0": 0}, 0)


def test_the_examples_in_the_docstrings_run():
    assert doctest.testmod(provenance) == doctest.TestResults(failed=0, attempted=3)


def test_paired_functions_record_who_wrote_what_and_how_much_was_needed():
    env = PairedFunctions(families=["offset"])
    episode = play(env, {seat: Holder() for seat in SEATS}, seed=1)
    ledger, tests = episode.outcome.provenance, episode.outcome.parts
    assert ledger.authored == ledger.surviving and ledger.duplicated == 0
    assert sum(ledger.authored.values()) == episode.task.reference_tokens > 0
    right = {seat: (episode.task.cell[seat],) * 2 for seat in SEATS}
    assert tests == {seat: PartTests(alone=right[seat], merged=right[seat]) for seat in SEATS}
    assert Episode.from_json(episode.to_json()) == episode


def test_a_part_that_ends_the_process_breaks_the_tests_of_the_other():
    env = PairedFunctions(families=["offset"], cells={"one_right": 0, "both_wrong": 0})
    env.reset(seed=0)
    env.step(dict.fromkeys(SEATS, "PASS"))
    env.step(dict.fromkeys(SEATS, "PASS"))
    option = env.task.decisions[0].best
    code = {seat: f"Answer: {option}\n{env.reference_work(seat, option)}" for seat in SEATS}
    env.step(code | {"agent_0": f"Answer: {option}\nimport os\nos._exit(0)"})
    lost = (False, False)
    assert env.episode.outcome.parts == {
        "agent_0": PartTests(alone=lost, merged=lost),
        "agent_1": PartTests(alone=(True, True), merged=lost),
    }
