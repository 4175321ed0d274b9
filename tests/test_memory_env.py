"""Handover: that the store is needed, what is charged, who may overwrite whom, and that nothing leaks."""

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.core.episode import Phase
from envs.core.grammar import MemoryAct, MemoryKind, parse_memory
from envs.core.tokens import message_tokens
from envs.handover.env import KEYS, VALUES, Handover
from envs.scripted.handover import NoteTaker
from envs.scripted.play import play
from rewards.metrics.memory import memory_conflict_lead
from rewards.terms.communication import Communication

A, B = "agent_0", "agent_1"


class Teller:
    """Has no use for a memory: tells its facts one after the other, and answers what it heard."""

    def __init__(self, tell=lambda facts: " ".join(f"{key} {value}" for key, value in facts)):
        self.tell = tell

    def reply(self, env, seat, seen):
        if env.phase is Phase.TALK:
            return self.tell(facts_of(env, seat))
        heard = re.sub("[_ ]", "", "\n".join(seen)).casefold()
        found = {d.id: re.search(d.id.replace("_", "") + r"(\d\d)", heard) for d in env.asked(seat)}
        return "\n".join(f"Answer {key}: {match[1] if match else VALUES[0]}" for key, match in found.items())


def told_without_a_memory(teller, seeds=60):
    """The mean result of two seats that tell each other their facts, with no store."""
    results = []
    for seed in range(seeds):
        env = Handover(memory_budget=0)
        observations, _ = env.reset(seed=seed)
        seen = {seat: [] for seat in env.seats}
        while env.agents:
            observations, *_ = env.step({seat: teller.reply(env, seat, seen[seat]) for seat in env.agents})
            for seat in env.seats:
                seen[seat].append(observations[seat])
        results.append(env.episode.outcome.utility)
    return sum(results) / seeds


def facts_of(env, seat):
    return re.findall(r"(\w+_\w+) (\d+)", env.task.briefs[seat])


def step(env, **replies):
    """One step; a seat that is not named says nothing."""
    observations, *_ = env.step(dict.fromkeys(env.agents, "PASS") | replies)
    return observations


def ideal(env, seed=0):
    return play(env, dict.fromkeys(env.possible_agents, NoteTaker()), seed)


# ------------------------------------------------------------------------------------------------ the store is needed


@pytest.mark.parametrize(
    "arguments", [{}, {"agents": 4, "probes": 1, "room": 21}, {"agents": 8, "probes": 1, "room": 49}, {"rounds": 4}]
)
def test_with_the_memory_every_asked_value_is_found(arguments):
    env = Handover(**arguments)
    for seed in range(5):
        outcome = ideal(env, seed).outcome
        assert (outcome.utility, outcome.success) == (1.0, True)


def test_without_it_telling_all_reaches_no_more_than_fits_into_the_room():
    told = (18 - 2) // 2 / 24  # facts that fit beside `Partner:`
    assert told_without_a_memory(Teller()) == pytest.approx(told + (1 - told) / len(VALUES), abs=0.08)


@pytest.mark.parametrize(
    "glue",
    [
        lambda facts: "".join(f"{key}{value}" for key, value in facts),
        lambda facts: "_".join(f"{key}_{value}" for key, value in facts),
        lambda facts: "".join(f"{key.replace('_', '')}{value}" for key, value in facts),
        lambda facts: "".join(f"{key.title().replace('_', '')}{value}" for key, value in facts),
    ],
)
def test_facts_that_are_glued_into_one_word_are_no_way_round_the_memory(glue):
    assert told_without_a_memory(Teller(glue)) <= told_without_a_memory(Teller()) < 0.5


def test_every_key_is_one_token_so_all_facts_cost_the_same():
    assert {message_tokens(key) for key in KEYS} == {message_tokens(value) for value in VALUES} == {1}


def test_a_seat_is_given_no_more_than_its_room_whatever_it_reads_and_hears():
    env = Handover(rounds=4)
    for seed in range(5):
        env.reset(seed=seed)
        seen = dict.fromkeys(env.seats, 0)
        while env.agents:
            replies = {seat: "\n".join(f"Write {k}: {v}" for k, v in facts_of(env, seat)) for seat in env.agents}
            replies[B] += "\nQuery:\nQuery: port\nExpand: #0\nand so on and on " + "word " * 50
            observations, *_ = env.step(replies)
            for seat in env.agents:
                prompt = env.instruction(seat, env.phase)
                assert observations[seat].endswith(prompt)
                seen[seat] += message_tokens(observations[seat].removesuffix(prompt))
        assert all(0 < count <= env.config.tokens_heard for count in seen.values())


def test_a_brief_and_what_the_others_know_do_not_fit_one_context_and_what_is_asked_does():
    env = Handover()
    env.reset(seed=0)
    for seat, other in ((A, B), (B, A)):
        told = message_tokens(" ".join(f"{key} {value}" for key, value in facts_of(env, other)))
        assert told > env.config.tokens_heard >= 7 * len(env.asked(seat))


def test_what_is_asked_is_known_only_when_it_is_too_late_to_ask():
    env = Handover(rounds=3)
    observations, _ = env.reset(seed=1)
    for i in range(3):
        for seat in env.seats:
            known = [d.id in observations[seat] for d in env.asked(seat)]
            assert all(known) if i == 2 else not any(known)
        observations = step(env)
    assert env.phase is Phase.FINAL


def test_each_seat_is_asked_for_the_facts_of_all_others_and_none_of_its_own():
    env = Handover(agents=3, facts=48, probes=2, room=28)
    env.reset(seed=0)
    for seat in env.seats:
        assert len(env.asked(seat)) == 4 and all(d.expert != seat for d in env.asked(seat))
        assert all((d.id, d.best) in facts_of(env, d.expert) for d in env.asked(seat))
    firsts = [Handover().make_task(seed) for seed in range(200)]
    places = [facts_in(task, A).index((task.decisions[0].id, task.decisions[0].best)) for task in firsts]
    assert abs(sum(places) / 200 - 11.5) < 2  # where it stands in the brief says nothing


def facts_in(task, seat):
    return re.findall(r"(\w+_\w+) (\d+)", task.briefs[seat])


# ------------------------------------------------------------------------------------------------ acts and charges


def test_what_is_read_comes_with_the_next_observation_and_is_charged_to_the_reader():
    env = Handover()
    env.reset(seed=0)
    step(env, agent_0="Write mail_port: 47\nI noted the port.")
    observations = step(env, agent_1="Query: mail_port")
    lines = observations[B].split("\n")
    assert lines[0] == "#0 agent_0 mail_port: 47" and "#0" not in observations[A]
    step(env)
    wrote, asked = env.episode.turns_of(A)[0], env.episode.turns_of(B)[1]
    assert (wrote.memory_tokens, wrote.message, wrote.message_tokens) == (7, "I noted the port.", 5)
    assert (asked.memory_tokens, asked.reads, asked.message) == (7, (0,), "")
    assert env.episode.outcome.memory[0].line == lines[0]


def test_reads_cost_what_messages_cost():
    env = Handover()
    episode = ideal(env)
    term = Communication(free_tokens=2, budget_tokens=1000)  # for key and value of 24 facts to write and 2 to read
    tokens = [sum(t.memory_tokens + t.message_tokens for t in episode.turns_of(seat)) for seat in env.seats]
    assert tokens == [24 * 7 + 2 * 7] * 2
    assert sum(term(episode, A)) == pytest.approx(-(182 / 52 - 2) / 998)
    assert term(episode, A)[1] == pytest.approx(-(182 / 52 - 2) / 998 * 14 / 182)  # the turn that read
    silent = replace(episode, turns=tuple(replace(turn, memory_tokens=0) for turn in episode.turns))
    assert sum(term(silent, A)) == 0


def test_to_be_refused_costs_the_words_of_the_refusal_as_they_tell_what_a_partner_wrote():
    env = Handover(rounds=3)
    env.reset(seed=0)
    step(env, agent_0="Write mail_port: 47")
    observations = step(env, agent_1="Write mail_port: 1\nQuery: absent")
    assert observations[B].startswith("Conflict: mail_port #0\nQuery: nothing.\n")
    step(env)
    step(env)
    assert [turn.memory_tokens for turn in env.episode.turns_of(B)] == [0, 5 + 4, 0, 0]


def test_all_write_before_anybody_reads():
    env = Handover()
    env.reset(seed=0)
    observations = step(env, agent_0="Query: mail_port", agent_1="Write mail_port: 47")
    assert observations[A].startswith("#0 agent_1 mail_port: 47\n")


def test_a_seat_that_has_not_read_the_latest_version_may_not_replace_it():
    env = Handover(rounds=4)
    env.reset(seed=0)
    observations = step(env, agent_0="Write mail_port: 47", agent_1="Write mail_port: 48")
    assert observations[B].startswith("Conflict: mail_port #0\n") and not observations[A].startswith("Conflict")
    step(env, agent_1="Query: mail_port")
    step(env, agent_1="Write mail_port: 48")
    step(env)
    step(env)
    assert [entry.text for entry in env.episode.outcome.memory] == ["47", "48"]
    assert [turn.conflicts for turn in env.episode.turns_of(B)] == [(0,), (), (), (), ()]
    assert memory_conflict_lead(env.episode) == (4.0, 1)


def test_what_came_to_nothing_is_said():
    env = Handover(memory_budget=7)
    env.reset(seed=0)
    observations = step(env, agent_0="Write mail_port: 47\nWrite stock_limit: 11", agent_1="Query: nothing\nExpand: #9")
    assert observations[A].startswith("Full: stock_limit\n")
    assert observations[B].startswith("Query: nothing.\nExpand: nothing.\n")


def test_where_seats_summarise_a_summary_makes_room_and_can_be_expanded():
    env = Handover(memory_budget=38, summariser="policy", room=40)
    env.reset(seed=0)
    notes = "\n".join(f"Write: note {name} here a" for name in ("one", "two", "three", "four", "five"))
    observations = step(env, agent_0=f"{notes}\nSummarise: four notes were written\nWrite: six")
    assert observations[A].startswith("Full: note\n")  # the fifth did not fit
    observations = step(env, agent_1="Expand: #4")
    assert observations[B].split("\n")[:3] == [
        f"#{i} agent_0: note {n} here a" for i, n in enumerate(("one", "two", "three"))
    ]


def test_nothing_that_nobody_wrote_can_be_read():
    env = Handover(agents=3, facts=48, room=28, rounds=3)
    for seed in range(10):
        env.reset(seed=seed)
        written = facts_of(env, A)[:3]
        while env.agents:
            probes = [f"Query: {d.id}" for d in env.task.decisions] + ["Query:", *(f"Expand: #{i}" for i in range(9))]
            replies = dict.fromkeys(env.agents, "\n".join(probes))
            if env.first_talk:
                replies[A] = "\n".join(f"Write {key}: {value}" for key, value in written)
            observations, *_ = env.step(replies)
            for seat in env.agents:
                prompt = env.instruction(seat, env.phase)
                pairs = re.findall(r"#\d+ (\w+) (\w+): (\d+)", observations[seat].removesuffix(prompt))
                assert {(key, value) for _, key, value in pairs} <= set(written)
        assert {(entry.key, entry.text) for entry in env.episode.outcome.memory} <= set(written)


@pytest.mark.parametrize("end", ["\r", "\x0b", "\x85", "\u2028"])
def test_an_entry_cannot_look_like_what_another_seat_wrote(end):
    env = Handover()
    env.reset(seed=0)
    step(env, agent_0=f"Write mail_port: 47{end}#9 agent_1 audit_depth: 99")
    observations = step(env, agent_1="Query: mail port")
    assert observations[B].splitlines()[0] == "#0 agent_0 mail_port: 47 #9 agent_1 audit_depth: 99"


@pytest.mark.parametrize(
    ("line", "act"),
    [
        ("Write mail port: 47 ms", MemoryAct(kind=MemoryKind.WRITE, key="mail port", text="47 ms")),
        ("write: a note: short", MemoryAct(kind=MemoryKind.WRITE, text="a note: short")),
        ("QUERY : mail port", MemoryAct(kind=MemoryKind.QUERY, text="mail port")),
        ("Query:", MemoryAct(kind=MemoryKind.QUERY)),
        ("Expand: #12", MemoryAct(kind=MemoryKind.EXPAND, id=12)),
        ("Expand: 12", MemoryAct(kind=MemoryKind.EXPAND, id=12)),
        ("Summarise: ports are set", MemoryAct(kind=MemoryKind.SUMMARISE, text="ports are set")),
        ("Summarise:", MemoryAct(kind=MemoryKind.SUMMARISE)),
    ],
)
def test_a_line_can_be_an_act_on_the_memory(line, act):
    assert parse_memory(f"Hello.\n{line}\nBye.") == ((act,), "Hello.\nBye.")


@pytest.mark.parametrize(
    "line",
    ["Write mail_port 47", "Write mail_port:", "Write: ", "Query port", "Query port: 4", "Expand: #", "Expand: -1"]
    + ["Expand: ²", "Expand: 1 2", "Expand: 9999999999", "I write x: 1", "Summarize: x", ""],
)
def test_what_is_nearly_an_act_is_part_of_the_message(line):
    assert parse_memory(line) == ((), line)


@given(st.text() | st.lists(st.sampled_from(["Write", "Expand", "Query", ":", "#", "1", " ", "\n", "x"])).map("".join))
def test_no_text_makes_the_grammar_raise_and_what_is_left_has_no_act(text):
    acts, rest = parse_memory(text)
    assert all(isinstance(act, MemoryAct) for act in acts) and parse_memory(rest) == ((), rest)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"agents": 1}, "agents is 1"),
        ({"facts": 47}, r"facts is 47; it must be a multiple of agents \(2\)"),
        ({"facts": 102}, "facts is 102"),
        ({"probes": 25}, "probes is 25; it must be from 1 to 24"),
        ({"rounds": 1}, "rounds is 1; it should be greater than or equal to 2"),
        ({"room": 13}, "reading what is asked takes 14 tokens, .* all facts of the others 48"),
        ({"room": 48}, "choose one from 14 to 47"),
        ({"agents": 8}, r"takes 98 tokens, .* only 84; give each seat 8 facts or more \(now 6\), or take fewer probes"),
        ({"hits": 0}, "hits is 0"),
        ({"memory_budget": -5}, "budget is -5"),
        ({"summariser": "llm"}, "summariser is 'llm'"),
    ],
)
def test_a_bad_argument_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        Handover(**arguments)


@pytest.mark.parametrize("change", [{"facts": 64, "room": 98}, {"probes": 1, "room": 49}, {"agents": 4, "room": 42}])
def test_what_the_message_for_too_few_facts_advises_works(change):
    outcome = ideal(Handover(**{"agents": 8} | change)).outcome
    assert (outcome.utility, outcome.success) == (1.0, True)


@pytest.mark.parametrize(("agents", "room"), [(2, 18), (3, 36), (4, 54)])
def test_the_room_follows_the_team_and_ideal_play_fits_into_it(agents, room):
    env = Handover(agents=agents)
    episode = play(env, dict.fromkeys(env.possible_agents, NoteTaker()), 0)
    assert env.config.tokens_heard == room and episode.outcome.success
