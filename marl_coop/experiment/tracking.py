"""A run at wandb: its name, its group, its whole configuration, a point per update, and what came of it.

It takes the place of the callback of transformers, which knows the section `training` alone and counts in its own
steps. A run that is never seen at wandb is still a run: whatever goes wrong there costs one line and seconds.
"""

import http.client
import netrc
import os
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import wandb
from pydantic import ValidationError
from transformers import TrainerCallback

from envs.core.episode import Episode
from envs.core.tokens import one_line

ANSWER_S = 5.0  # to the question whether the server is there
START_S = 30.0  # to make the run there; wandb's own 90 are long to wait for a run that can be sent later
FINISH_S = 60.0  # to send what is left in the end
PROJECT = "marl-coop"
VARIABLES = {  # to the settings of wandb that they become
    "WANDB_MODE": "mode",
    "WANDB_BASE_URL": "base_url",
    "WANDB_PROJECT": "project",
    "WANDB_RUN_ID": "run_id",
}
TRANSCRIPTS = 20  # of an evaluation: what a person reads


class WandbRun(TrainerCallback):
    """One run at wandb. Where nobody is logged in or the server does not answer, it is kept on the disk, from where
    `wandb sync` sends it.

    Args:
        folder: the run's; wandb puts its own folder there.
        run_id: by which a resumed run is the same run.
        name, group: what it is called, and with which runs it belongs together.
        config: the whole configuration.
        say: takes the one line that says what went wrong.
    """

    def __init__(
        self,
        folder: Path,
        run_id: str,
        name: str,
        group: str,
        config: Mapping[str, Any],
        say: Callable[[str], None],
    ):
        self.say = say
        options: dict[str, Any] = {
            "project": os.environ.get("WANDB_PROJECT", PROJECT),
            "group": os.environ.get("WANDB_RUN_GROUP", group),
            "dir": os.environ.get("WANDB_DIR", str(folder)),
            "name": name,
            "id": os.environ.get("WANDB_RUN_ID", run_id),  # an agent of a sweep has chosen one
            "resume": "allow",
        }
        mode: Any = wandb_mode()
        settings: dict[str, Any] = {"quiet": True, "init_timeout": START_S, "finish_timeout": FINISH_S}
        settings |= remote_without_user(options["dir"])
        problem = None if mode else unreachable(server())
        if problem is None:
            try:
                self.run = wandb.init(mode=mode, settings=wandb.Settings(**settings), **options)
            except wandb.Error as error:
                problem = one_line(error)
                wandb.teardown()  # its service keeps the id of the run that it could not make
        if problem is not None:
            say(
                f"wandb is not used: {problem}; the run is kept in {options['dir']}, and `wandb sync` can send it later"
            )
            self.run = wandb.init(mode="offline", settings=wandb.Settings(**settings), **options)
        self.run.config.update(dict(config), allow_val_change=True)
        self.run.define_metric("update")
        self.run.define_metric("*", step_metric="update", step_sync=True)
        self._lost = False

    def on_log(self, args, state, control, logs=None, **kwargs):
        if logs and "update" in logs:
            # with the step, wandb passes over what a resumed run repeats
            self._send(lambda: self.run.log(logs, step=logs["update"], commit=True))

    def transcripts(self, label: str, episodes: Sequence[Episode], update: int | None = None) -> None:
        """A table of what was said in the first episodes of an evaluation: `transcripts/<label>`.

        Args:
            update: after whose learning it was played, before its metrics are logged; None: before or after training.
        """
        table = wandb.Table(columns=["task", "family", "success", "utility", "message tokens", "transcript"])
        for episode in episodes[:TRANSCRIPTS]:
            task, outcome, tokens = episode.task, episode.outcome, sum(turn.message_tokens for turn in episode.turns)
            said = "\n\n".join(f"{turn.agent}, {turn.phase}: {turn.reply}" for turn in episode.turns)
            table.add_data(str(task.seed), task.family, outcome.success, outcome.utility, tokens, said)
        self._send(lambda: self.run.log({f"transcripts/{label}": table}, step=update, commit=False))

    def report(self, results: Mapping[str, Mapping[str, float | None]], columns: Sequence[str], rows: Sequence) -> None:
        """What came of the run: `<side>/<metric>` in its summary, and a table.

        Args:
            results: value of each metric by side, such as before and after.
            columns, rows: of the table.
        """
        summary = {f"{side}/{name}": value for side, found in results.items() for name, value in found.items()}
        table = wandb.Table(columns=list(columns), data=[list(row) for row in rows])
        self._send(lambda: self.run.summary.update(summary))
        self._send(lambda: self.run.log({"results": table}))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        """Send what is left."""
        self._send(lambda: self.run.finish(exit_code=int(kind is not None)))

    def _send(self, call: Callable[[], None]) -> None:
        """Let nothing that happens to wandb end a training; the first time it is said."""
        try:
            call()
        except (wandb.Error, OSError) as error:
            if not self._lost:
                self.say(f"wandb is lost: {one_line(error)}; the run goes on without it")
            self._lost = True


def check_variables() -> None:
    """Check what the environment tells wandb.

    Raises:
        ValueError: wandb takes no such value; one line, without the value where that may hold a password.
    """
    for variable, setting in VARIABLES.items():
        said: dict[str, Any] = {setting: os.environ.get(variable)}
        try:
            if said[setting]:
                wandb.Settings(**said)
        except wandb.Error as error:
            raise ValueError(f"${variable} cannot be used: {one_line(error)}") from error
        except ValidationError as error:
            raise ValueError(f"${variable} cannot be used: {error.errors()[0]['msg']}") from None


def remote_without_user(folder: str) -> dict[str, str]:
    """The setting of wandb that is the address of a git checkout's origin, where that has a user: wandb itself drops a
    password alone, and in `https://TOKEN:x-oauth-basic@host` the user is the secret."""
    command = ["git", "-C", folder, "config", "--get", "remote.origin.url"]
    try:
        url = urlsplit(subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip())
    except (FileNotFoundError, ValueError):  # there is no git here, or no address that wandb could read
        return {}
    if not url.scheme.startswith("http") or "@" not in url.netloc:
        return {}
    return {"git_remote_url": url._replace(netloc=url.netloc.rpartition("@")[2]).geturl()}


def server() -> str:
    """Address of the wandb server."""
    return os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")


def wandb_mode() -> str | None:
    """Where a run is to go: what WANDB_MODE says, "offline" where nobody is logged in; None: to the server."""
    return os.environ.get("WANDB_MODE") or (None if _logged_in() else "offline")


def _logged_in() -> bool:
    """Whether wandb could log in without asking: with an API key in the environment or in the netrc file."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return urlsplit(server()).hostname in netrc.netrc(os.environ.get("NETRC")).hosts
    except (OSError, netrc.NetrcParseError):
        return False


def unreachable(address: str) -> str | None:
    """Why a server gives no answer of any kind, in a line that has no password; None: it gives one."""
    try:
        urllib.request.urlopen(address, timeout=ANSWER_S).close()
    except urllib.error.HTTPError:  # an answer, though no page
        return None
    except (OSError, ValueError, http.client.HTTPException) as error:
        if "@" in address:
            return "the server of $WANDB_BASE_URL, which has a user in it, does not answer"
        return f"{address} does not answer ({one_line(error)})"
    return None
