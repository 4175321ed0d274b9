"""A model behind an endpoint in a seat, spoken to over real HTTP."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import tiny

from envs.core.episode import Phase
from marl_coop.rollout.endpoint import Endpoint, EndpointError

A, B = tiny.SEATS
LIMITS = {Phase.STANCE: 5, Phase.TALK: 6, Phase.FINAL: 7}


@pytest.fixture
def server():
    """A chat server that says red and keeps what it was asked; `server.answer` is its (status, body)."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):  # noqa: N802  the name that http.server calls
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.server.asked.append((self.path, self.headers.get("Authorization"), body))
            status, answer = self.server.first.pop() if self.server.first else self.server.answer
            self.send_response(status)
            self.end_headers()
            self.wfile.write(answer.encode())

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked, server.first = [], []
    server.answer = 200, json.dumps({"choices": [{"message": {"content": "Answer: red (70%)"}}]})
    server.url = f"http://127.0.0.1:{server.server_port}/v1/"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_an_endpoint_plays_a_whole_episode(server, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    endpoint = Endpoint(server.url, "some-model", "team", 0.5, LIMITS)
    trainer = tiny.cue_trainer(tmp_path, policies={A: A, B: endpoint})
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
    [((404, "no such model"), "404: no such model"), ((200, "hello"), "no chat completion"), ((200, "{}"), "KeyError")],
)
def test_an_endpoint_without_a_reply_says_what_it_gave(server, answer, message):
    server.answer = answer
    env = tiny.CueTask()
    env.reset(seed=0)
    with pytest.raises(EndpointError, match=message):
        Endpoint(server.url, "some-model", "team", 1.0, LIMITS).reply(env, A)


def test_an_endpoint_that_is_not_there_is_named():
    env = tiny.CueTask()
    env.reset(seed=0)
    with pytest.raises(EndpointError, match="http://127.0.0.1:9/v1, asked for model 'm', gave ConnectError"):
        Endpoint("http://127.0.0.1:9/v1", "m", "team", 1.0, LIMITS).reply(env, A)


def test_a_busy_endpoint_is_asked_again_and_given_up_in_the_end(server, monkeypatch):
    monkeypatch.setattr("marl_coop.rollout.endpoint.PAUSES_S", (0.0, 0.0))
    env = tiny.CueTask()
    env.reset(seed=0)
    endpoint = Endpoint(server.url, "some-model", "team", 1.0, LIMITS)
    server.first = [(503, "busy"), (429, "too many")]
    assert endpoint.reply(env, A) == "Answer: red (70%)" and len(server.asked) == 3
    server.answer = 503, "busy"
    with pytest.raises(EndpointError, match="gave 503: busy"):
        endpoint.reply(env, A)
    assert len(server.asked) == 6
