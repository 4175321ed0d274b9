"""A model behind an endpoint in a seat, spoken to over real HTTP."""

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import tiny
from trained import trained

from envs.core.env import MAX_REPLY
from envs.core.episode import Phase
from envs.core.seeds import stable_seed
from marl_coop.config import policies
from marl_coop.config.errors import ConfigError
from marl_coop.config.schema import load_config
from marl_coop.engines import FinishReason
from marl_coop.experiment import checks
from marl_coop.rollout.endpoint import Endpoint, EndpointError

A, B = tiny.SEATS
ROOT = Path(__file__).parents[1]
LIMITS = {Phase.STANCE: 5, Phase.TALK: 6, Phase.FINAL: 7}


def completion(content, finish_reason="stop", **more):
    return json.dumps({"choices": [{"message": {"content": content}, "finish_reason": finish_reason}], **more})


@pytest.fixture
def server():
    """A chat server that says red and keeps what it was asked; `server.answer` is its (status, body), a
    body being a text or its parts in bytes."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):  # noqa: N802  the name that http.server calls
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.server.asked.append((self.path, self.headers.get("Authorization"), body))
            self.server.hold(body)
            status, answer = self.server.first.pop() if self.server.first else self.server.answer
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Retry-After", "0.01")
            self.end_headers()
            answer = answer.encode() if isinstance(answer, str) else answer
            for part in [answer] if isinstance(answer, bytes) else answer:
                self.wfile.write(part)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked, server.first, server.hold = [], [], lambda body: None
    server.answer = 200, completion("Answer: red (70%)")
    server.url = f"http://127.0.0.1:{server.server_port}/v1/"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def env():
    env = tiny.CueTask()
    env.reset(seed=0)
    return env


@pytest.fixture(autouse=True)
def no_key(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def endpoint_at(url, **options):
    return Endpoint(url, "some-model", "team", 0.5, LIMITS, **options)


def test_an_endpoint_plays_a_whole_episode(server, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    trainer = tiny.cue_trainer(tmp_path, policies={A: A, B: endpoint_at(server.url)})
    (rollout,) = trainer.players.play([7], sampling_seed=0)
    episode = rollout.episode
    assert [turn.reply for turn in episode.turns_of(B)] == ["Answer: red (70%)"] * 3
    assert episode.players == {A: A, B: "some-model"}
    assert [body["max_tokens"] for *_, body in server.asked] == [5, 6, 7]
    assert {(path, key) for path, key, _ in server.asked} == {("/v1/chat/completions", "Bearer secret")}
    *_, last = server.asked[-1]
    assert (last["model"], last["temperature"]) == ("some-model", 0.5)
    said = [(m["role"], m["content"]) for m in last["messages"]]
    observations = [turn.observation for turn in episode.turns_of(B)]
    assert said[0] == ("system", "team")
    assert said[1::2] == [("user", text) for text in observations]
    assert said[2::2] == [("assistant", "Answer: red (70%)")] * 2


@pytest.mark.parametrize(
    "answer, message",
    [
        ((404, "no such model"), "gave 404: no such model"),
        ((401, '{"error": {"message": "bad key"}}'), "gave 401: .*bad key"),
        ((200, "hello"), "no chat completion"),
        ((200, "{}"), "no chat completion"),
        ((200, '{"choices": []}'), "no chat completion"),
        ((200, "[" * 10**5), "no chat completion"),
        ((200, '{"choices": [{}]}'), "no chat completion"),
        ((200, '{"choices": [{"message": {"content": 7}}]}'), "no chat completion"),
        ((200, b'{"choices": [{"message": {"content": "\xff\xfe"}}]}'), "no chat completion"),
    ],
)
def test_an_endpoint_without_a_reply_says_what_it_gave(server, env, answer, message):
    server.answer = answer
    with pytest.raises(EndpointError, match=message) as caught:
        endpoint_at(server.url).reply(env, A)
    assert "\n" not in str(caught.value)
    assert len(server.asked) == 1


def test_an_endpoint_that_hangs_is_given_up_in_time(server, env, monkeypatch):
    monkeypatch.setattr("marl_coop.rollout.endpoint.TIMEOUT_S", 0.2)
    over = threading.Event()
    server.hold = lambda body: over.wait(timeout=20)
    with pytest.raises(EndpointError, match="gave APITimeoutError"):
        endpoint_at(server.url, retries=1).reply(env, A)
    over.set()
    assert len(server.asked) == 2


def test_a_reply_that_quotes_the_key_is_kept_without_it(server, env, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "planted-key-of-mine")
    server.answer = 200, completion("planted-key-of-mine?")
    assert endpoint_at(server.url).reply(env, A) == "$OPENAI_API_KEY?"


def test_a_reply_that_never_ends_is_given_up_in_time(server, env, monkeypatch):
    monkeypatch.setattr("marl_coop.rollout.endpoint.DEADLINE_S", 0.5)
    over = threading.Event()

    def drip():
        while not over.wait(timeout=0.05):
            yield b" "

    server.answer = 200, drip()
    with pytest.raises(EndpointError, match="gave no whole reply within 0.5 s"):
        endpoint_at(server.url, retries=0).reply(env, A)
    over.set()


def test_an_endpoint_that_is_not_there_is_named(env):
    with pytest.raises(EndpointError, match="http://127.0.0.1:9/v1, asked for model 'some-model', gave APIConnection"):
        endpoint_at("http://127.0.0.1:9/v1", retries=0).reply(env, A)


def test_a_busy_endpoint_is_asked_again_and_given_up_in_the_end(server, env):
    server.first = [(503, "busy"), (429, "too many")]
    assert endpoint_at(server.url, retries=2).reply(env, A) == "Answer: red (70%)" and len(server.asked) == 3
    server.answer = 503, "busy"
    with pytest.raises(EndpointError, match="gave 503: busy"):
        endpoint_at(server.url, retries=2).reply(env, A)
    assert len(server.asked) == 6


@pytest.mark.parametrize(
    "content, reply",
    [
        (None, ""),
        ([{"type": "text", "text": "Answer: "}, {"type": "image"}, {"type": "text", "text": "red"}], "Answer: red"),
        (["Answer: ", "red"], "Answer: red"),
        ({"type": "text", "text": "Answer: red"}, "Answer: red"),
        ("so \ud83d be it", "so ? be it"),
        ("x" + " " * 70_000, "x" + " " * (MAX_REPLY - 1)),
    ],
    ids=["null", "parts", "texts", "a part", "half a surrogate pair", "too long"],
)
def test_an_odd_reply_is_a_turn(server, tmp_path, content, reply):
    server.answer = 200, completion(content)
    trainer = tiny.cue_trainer(tmp_path, policies={A: A, B: endpoint_at(server.url)})
    (rollout,) = trainer.players.play([7], sampling_seed=0)
    turns = rollout.episode.turns_of(B)
    assert [turn.reply for turn in turns] == [reply] * 3
    assert [turn.truncated for turn in turns] == [len(content or "") > MAX_REPLY] * 3


def test_every_reply_is_asked_for_by_a_seed_of_its_own_and_the_same_when_it_is_played_again(server, tmp_path):
    trainer = tiny.cue_trainer(tmp_path, policies={A: A, B: endpoint_at(server.url)})
    played = []
    for tasks, sampling_seed in (([7, 7], 0), ([7, 7], 0), ([7], 1)):  # two plays of a task, again, another attempt
        del server.asked[:]
        trainer.players.play(tasks, sampling_seed=sampling_seed)
        played.append({body["seed"] for *_, body in server.asked})
    assert played[0] == played[1] and len(played[0]) == 2 * 3
    assert len(played[2]) == 3 and not played[0] & played[2]


def test_a_reply_that_the_endpoint_cut_is_marked(server, env):
    server.answer = 200, completion("Answer:", "length")
    assert endpoint_at(server.url).answer(env, A, 0) == ("Answer:", FinishReason.LENGTH)


def test_a_slow_reply_holds_back_its_own_episode_alone(server, tmp_path):
    """The endpoint answers nothing in one episode before it has heard all of the others."""
    trainer = tiny.cue_trainer(tmp_path, policies={A: A, B: endpoint_at(server.url)})
    heard_the_others, waited = threading.Event(), []
    held = {stable_seed(0, 0, 1, turn) % 2**31 for turn in range(3)}  # the replies of agent_1 in the first episode

    def hold(body):
        if body["seed"] in held:
            waited.append(heard_the_others.wait(timeout=20))
        elif sum(asked["seed"] not in held for *_, asked in server.asked) == 3 * 3:
            heard_the_others.set()

    server.hold = hold
    rollouts = trainer.players.play(range(4), sampling_seed=0)
    assert waited == [True] * 3
    assert all(len(rollout.episode.turns) == 6 for rollout in rollouts)


def test_an_endpoint_that_fails_ends_the_play_with_its_own_error(server, tmp_path):
    server.answer = 401, "bad key"
    trainer = tiny.cue_trainer(tmp_path, policies={A: A, B: endpoint_at(server.url)})
    with pytest.raises(EndpointError, match="gave 401: bad key"):
        trainer.players.play(range(4), sampling_seed=0)


@pytest.mark.parametrize("mixed", [False, True])
def test_an_endpoint_that_gives_no_reply_is_refused_before_the_run(server, tmp_path, mixed):
    entry = f"{server.url}#some-model"
    said = "policies={agent_1: {base: 1, '%s': 1}}" if mixed else "policies={agent_1: '%s'}"
    config = load_config([ROOT / "configs/quickstart.yaml"], [said % entry])
    args = tiny.arguments(tmp_path)
    checks.check_endpoints(config, args)
    ((path, _, body),) = server.asked
    assert (path, body["model"], body["max_tokens"]) == ("/v1/chat/completions", "some-model", 2)
    server.answer = 401, "bad key"
    with pytest.raises(ConfigError, match=r"command line: policies.agent_1: .*gave 401: bad key. Does it run"):
        checks.check_endpoints(config, args)


def test_a_configuration_without_the_client_is_refused_before_the_run(monkeypatch):
    monkeypatch.setattr(policies, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"'http://h/v1#m' needs the openai client: pip install --editable"):
        policies.check("http://h/v1#m", [])


def test_without_the_client_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(EndpointError, match=r"pip install --editable '.\[endpoint\]'"):
        endpoint_at("http://127.0.0.1:9/v1")


@pytest.mark.parametrize("said", [{}, {"usage": None}, {"usage": {"completion_tokens": 5}}, {"usage": {}}])
def test_a_reply_that_is_not_known_to_be_too_long_is_whole(server, env, said):
    server.answer = 200, completion("Answer: red (70%)", **said)
    assert endpoint_at(server.url).answer(env, A, 0) == ("Answer: red (70%)", FinishReason.STOP)


@pytest.mark.parametrize("said", [{}, {"usage": {"completion_tokens": "many"}}])
def test_a_reply_without_a_count_is_cut_where_no_tokenizer_would_have_let_it_go_on(server, env, said):
    server.answer = 200, completion("one two three four five six seven eight nine ten", **said)
    assert endpoint_at(server.url).answer(env, A, 0).finish_reason is FinishReason.STOP  # 5 tokens may do for 10 words
    server.answer = 200, completion("one two three four five six " * 1000, **said)
    assert endpoint_at(server.url).answer(env, A, 0) == (
        "one two three four five six one two three four",
        FinishReason.LENGTH,
    )


def test_an_endpoint_that_knows_no_limit_is_cut_at_it_and_the_reply_counts_as_truncated(server, env, tmp_path):
    server.answer = 200, completion("one two three four five six seven eight " * 5, usage={"completion_tokens": 40})
    assert env.phase is Phase.STANCE
    assert endpoint_at(server.url).answer(env, A, 0) == ("one two three four five", FinishReason.LENGTH)
    trainer = tiny.cue_trainer(tmp_path, policies={A: A, B: endpoint_at(server.url)})
    (rollout,) = trainer.players.play([7], sampling_seed=0)
    turns = rollout.episode.turns_of(B)
    assert [turn.reply.split()[-1] for turn in turns] == ["five", "six", "seven"]
    assert all(turn.truncated for turn in turns)


def test_replies_of_100_000_tokens_are_cut_and_counted_and_training_goes_on(server, tmp_path):
    server.answer = 200, completion("one two three four " * 25_000, usage={"completion_tokens": 100_000})
    played = []
    keep = {"on_rollouts": lambda update, episodes, *_: played.append(episodes)}
    players = {A: A, B: endpoint_at(server.url)}
    _, updates = trained(tmp_path, policies=players, episodes_per_update=2, num_updates=2, **keep)
    assert [record["update"] for record in updates] == [1, 2]
    assert all(turn.truncated and len(turn.reply) < 40 for episode in played[1] for turn in episode.turns_of(B))
    cut = [turn.truncated for episode in played[1] for turn in episode.turns]
    assert updates[1]["team/truncation_rate"] == pytest.approx(sum(cut) / len(cut)) and sum(cut) >= len(cut) / 2
