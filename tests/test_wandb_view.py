"""A saved view of a project at wandb, up to what the server is sent."""

import json
from types import SimpleNamespace

import pytest
import wandb
from viewed import played, run_folder
from wandb.errors import CommError

from marl_coop import cli

pytest.importorskip("wandb_workspaces", reason="wandb-workspaces is not installed: marl-coop[export]")


class Server:
    """Takes what is sent to wandb's GraphQL interface."""

    def __init__(self, refusal: Exception | None = None):
        self.app_url, self.refusal, self.sent = "https://wandb.example", refusal, []

    def execute_graphql(self, query, variables):
        if self.refusal:
            raise self.refusal
        self.sent.append(variables)
        return {"upsertView": {"view": {"id": "1", "name": "nw-abc-v"}, "inserted": True}}


@pytest.fixture
def run(tmp_path):
    return run_folder(tmp_path / "run", updates=[played(2)])


def log_in(monkeypatch, server):
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    api = SimpleNamespace(default_entity="me", _service_api=server)
    monkeypatch.setattr(wandb, "Api", lambda: api)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_view_groups_what_the_run_has_logged_and_nothing_else(run, monkeypatch, capsys):
    server = Server()
    log_in(monkeypatch, server)
    assert cli.main(["export", str(run), "--wandb-view", "lab"]) == 0
    assert capsys.readouterr().out.startswith("https://wandb.example/me/lab?nw=abc")
    (sent,) = server.sent
    assert (sent["entityName"], sent["projectName"], sent["displayName"]) == ("me", "lab", "marl-coop")
    sections = json.loads(sent["spec"])["section"]["panelBankConfig"]["sections"]
    found = {
        section["name"].partition(":")[0]: [panel["config"].get("metrics") for panel in section["panels"]]
        for section in sections
    }
    assert found["Team"] == [["team/j"]] and found["Learner"] == [["agent_0/entropy"]]
    terms = ["agent_0/advantage_share/" + term for term in ("capitulation", "communication", "deference")]
    assert found["Reward terms"] == [[term] for term in (*terms, "agent_0/advantage_share/task_success")]
    axes = {panel["config"].get("xAxis") for section in sections[:-1] for panel in section["panels"]}
    assert axes == {"update"} and len(found["What was said"]) == 4


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_view_of_another_account_that_is_refused_is_one_line(run, monkeypatch, capsys):
    log_in(monkeypatch, Server(CommError("permission denied\nfor them")))
    assert cli.main(["export", str(run), "--wandb-view", "them/lab"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: the view is not taken by wandb: permission denied") and "wandb login" in line


def test_without_a_login_or_an_update_there_is_no_view(run, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.delenv("WANDB_MODE", raising=False)
    assert cli.main(["export", str(run), "--wandb-view", "lab"]) == 2
    assert "nobody is logged in here: wandb login" in capsys.readouterr().err
    empty = run_folder(tmp_path / "empty", before=played(1))
    assert cli.main(["export", str(empty), "--wandb-view", "lab"]) == 2
    assert "has logged no update yet" in capsys.readouterr().err
