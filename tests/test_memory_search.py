"""What a query of the shared memory finds, and in which order."""

import math

import pytest

from envs.handover.memory import Memory, bm25


def test_a_key_in_the_query_comes_first_then_the_better_match_then_the_newer():
    memory = Memory(1000)
    memory.write("agent_0", "port port port of mail")
    memory.write("agent_0", "the port is closed and so is the harbour")
    memory.write("agent_0", "80", key="mail port")
    memory.write("agent_0", "nothing to see")
    memory.write("agent_0", "the port is closed and so is the harbour")
    assert [entry.id for entry in memory.query("agent_1", "mail port?", k=9)] == [2, 0, 4, 1]
    assert [entry.id for entry in memory.query("agent_1", "", k=2)] == [4, 3]  # without words the newest
    assert memory.query("agent_1", "submarine", k=9) == ()


@pytest.mark.parametrize("words", ["mail_port", "mail-port", "MAIL PORT", "what is the mail port?", "(mail_port)"])
@pytest.mark.parametrize("key", ["mail_port", "mail-port", "Mail Port"])
def test_a_key_is_found_however_its_words_are_joined(words, key):
    memory = Memory(1000)
    memory.write("agent_0", "47", key=key)
    for other in ("mail_limit", "chat_port", "port", "mail", "_"):
        memory.write("agent_0", "the mail port, the port of mail, what is mail_port", key=other)
    assert [entry.text for entry in memory.query("agent_1", words, k=1)] == ["47"]


def test_who_asks_for_a_name_is_not_given_those_that_share_a_part_of_it_and_who_asks_for_the_part_is():
    memory = Memory(1000)
    for key in ("mail_port", "mail_limit", "chat_port"):
        memory.write("agent_0", "47", key=key)
    assert [entry.key for entry in memory.query("agent_1", "mail_port", k=9)] == ["mail_port"]
    assert [entry.key for entry in memory.query("agent_1", "port", k=9)] == ["chat_port", "mail_port"]


def test_a_key_without_a_word_is_no_answer_to_every_query():
    memory = Memory(1000)
    memory.write("agent_0", "read me first", key="!!")
    assert memory.query("agent_1", "mail port") == ()


def test_bm25_is_the_sum_over_the_words_of_rarity_times_saturated_count():
    texts = [["a", "b", "a"], ["b"], ["c", "c"]]
    rare, common = math.log(1 + 2.5 / 1.5), math.log(1 + 1.5 / 2.5)
    first = rare * 2 * 2.5 / (2 + 1.5 * (0.25 + 0.75 * 3 / 2)) + common * 2.5 / (1 + 1.5 * (0.25 + 0.75 * 3 / 2))
    second = common * 2.5 / (1 + 1.5 * (0.25 + 0.75 / 2))
    assert bm25(["a", "b", "b"], texts) == pytest.approx([first, second, 0.0])
    assert bm25(["a"], []) == []
