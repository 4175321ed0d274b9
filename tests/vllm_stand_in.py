"""A small server that speaks as vLLM does and samples with the embedded engine: `vllm_stand_in.py BASE_FOLDER PORT`.

It says "ready" once it listens. `GET /seen` tells what it was asked. `POST /behave` makes it wrong on purpose:

    serves         maps an adapter to the one that is served in its place
    temperature    at which it samples, whatever is asked
    hold           replies to a prompt that begins with this token take a while
    positions      tokens that a chat may have
    fixed          it takes no adapters
    status         of its answer, in the place of a completion
    choice         fields of a completion, in the place of its own

`POST /end` ends it.
"""

import json
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import tiny

from marl_coop.engines import Request
from marl_coop.engines.embedded import EmbeddedEngine
from marl_coop.policy.loading import load_base

POSITIONS = 512


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):  # noqa: N802  the name that http.server calls
        if self.path == "/seen":
            return self.answer(200, self.server.seen)
        if self.path != "/v1/models":
            return self.answer(404, {"detail": "Not Found"})
        models = [{"id": "base", "parent": None, "max_model_len": self.server.wrong.get("positions", POSITIONS)}]
        return self.answer(200, {"data": [*models, *({"id": n, "parent": "base"} for n in self.server.adapters)]})

    def do_POST(self):  # noqa: N802
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append([self.path, body])
        match self.path:
            case "/behave":
                self.server.wrong = body
                self.answer(200, {})
            case "/end":
                self.answer(200, {})
                os._exit(0)
            case "/v1/load_lora_adapter":
                self.load(**body)
            case "/v1/unload_lora_adapter":
                known = self.server.adapters.pop(body["lora_name"], None)
                self.answer(200 if known else 404, {})
            case "/v1/completions":
                self.complete(body)
            case _:
                self.answer(404, {"detail": "Not Found"})

    def load(self, lora_name, lora_path):
        if "fixed" in self.server.wrong:
            return self.answer(404, {"detail": "Not Found"})
        with self.server.lock:
            if lora_name in self.server.adapters:
                return self.answer(400, {"error": {"message": f"{lora_name} has already been loaded"}})
            if not Path(lora_path).is_dir():
                return self.answer(404, {"error": {"message": "No adapter found"}})
            if lora_name not in self.server.policy.all_adapters:
                self.server.policy.add_frozen(lora_name, Path(lora_path))
            self.server.adapters[lora_name] = lora_path
        return self.answer(200, "Success")

    def complete(self, body):
        name, wrong = body["model"], self.server.wrong
        if name not in self.server.adapters:
            return self.answer(404, {"error": {"message": f"The model `{name}` does not exist."}})
        if wrong.get("hold") == body["prompt"][0]:
            time.sleep(1.5)
        for own, other in wrong.get("serves", {}).items():
            if f"-{own}-" in body["model"]:
                name = next(known for known in self.server.adapters if f"-{other}-" in known)
        if "status" in wrong:
            return self.answer(wrong["status"], {"error": {"message": "no"}})
        assert {body[f"{kind}_penalty"] for kind in ("presence", "frequency")} == {0.0}
        assert (body["top_p"], body["top_k"], body["min_p"], body["ignore_eos"]) == (1.0, -1, 0.0, True)
        with self.server.lock:
            request = Request(
                chat=0,
                ids=body["prompt"],
                adapter=name,
                max_tokens=body["max_tokens"],
                temperature=wrong.get("temperature", body["temperature"]),
                stop_ids=frozenset(body["stop_token_ids"]),
                seed=body["seed"],
            )
            (reply,) = tiny.sample(self.server.engine, [request])
            self.server.engine.reset_cache()
        logprobs = {"token_logprobs": reply.logprobs}
        choice = {"token_ids": reply.ids, "logprobs": logprobs, "finish_reason": reply.finish_reason}
        return self.answer(200, {"choices": [choice | wrong.get("choice", {})]})

    def answer(self, status, content):
        text = json.dumps(content).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)
        except ConnectionError:  # who asked has gone
            self.close_connection = True

    def log_message(self, *_):
        pass


def main(folder: str, port: str) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", int(port)), Handler)
    server.daemon_threads = True
    server.policy = tiny.team(load_base(folder, "float32")[0], adapters=["unused"])
    server.engine = EmbeddedEngine(server.policy)
    server.lock, server.seen, server.wrong, server.adapters = threading.Lock(), [], {}, {}
    print("ready", server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
