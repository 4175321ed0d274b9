"""vLLM servers of our own for a test: they speak as vLLM does, each in a process of its own."""

import json
import os
import socket
import sys
import time
import urllib.request
from pathlib import Path

import tiny
from forked import Forked
from processes import ROOT, TESTS

from marl_coop.engines import Request
from marl_coop.engines.vllm_server import VLLMServerEngine
from marl_coop.players import BASE

A, B = tiny.SEATS


class StandIn:
    """A server in a process of its own."""

    def __init__(self, folder: Path):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.folder, self.url = folder, f"http://127.0.0.1:{self.port}/v1"
        self.begin()

    def begin(self):
        paths = {"PYTHONPATH": f"{TESTS}:{ROOT}", "OMP_NUM_THREADS": "1", "TMPDIR": str(self.folder)}  # it is killed
        command = [sys.executable, TESTS / "vllm_stand_in.py", self.folder, str(self.port)]
        self.process = Forked(command, os.environ | paths, self.folder)

    def wait(self):
        while not self.process.said()[0].startswith("ready"):
            assert self.process.poll() is None, self.process.said()
            time.sleep(0.05)

    def end(self):
        self.process.kill()
        self.process.communicate()

    def ask(self, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url.removesuffix('/v1')}/{path}", data)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def behave(self, **wrong):
        self.ask("behave", wrong)

    def seen(self, path, since=0):
        return [body for asked, body in self.ask("seen")[since:] if asked == f"/v1/{path}"]

    def now(self):
        return len(self.ask("seen"))


def start_two(folder: Path) -> list[StandIn]:
    """Servers of a tiny model, which is put into the folder."""
    tokenizer = tiny.word_tokenizer(tiny.WORDS)
    tokenizer.save_pretrained(folder)
    tiny.base_model(len(tokenizer)).save_pretrained(folder)
    servers = [StandIn(folder), StandIn(folder)]
    for server in servers:
        server.wait()
    return servers


def engine_of(policy, servers, version=0, **options):
    engine = VLLMServerEngine(policy, [server.url for server in servers], **options)
    engine.load_adapters(version)
    return engine


def ask(**fields):
    return Request(**({"temperature": 0.7, "stop_ids": frozenset([1]), "adapter": A, "max_tokens": 4} | fields))


def requests():
    return [ask(chat=i, ids=[3 + i, 4, 5], adapter=[A, B, BASE][i % 3], seed=2**62 + i) for i in range(6)]


def known(server):
    return [model["id"] for model in server.ask("v1/models")["data"] if model["parent"]]
