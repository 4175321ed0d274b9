"""The other end of `envs.sandbox.executor`: does one order of another machine and prints the answer as JSON.

python -m envs.sandbox.answer ORDER_FILE
"""

import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Any

from envs.sandbox import forks, tiers


def answer(order: dict[str, Any]) -> dict[str, Any]:
    """`tier`, and `replies` where there are processes to run; else `refused`, or `lost` and whether code `started`."""
    os.environ[tiers.DEMAND] = order["demand"]
    try:
        said: dict[str, Any] = {"tier": dataclasses.asdict(forks.tier())}
        if "processes" in order:
            bodies = [forks.Body(part and tuple(part), tuple(texts)) for part, texts in order["processes"]]
            replies = forks.ask(bodies, timeout_s=order["timeout_s"], memory_mb=order["memory_mb"])
            said["replies"] = [(reply.ended, reply.written.decode("latin-1")) for reply in replies]
        return said
    except tiers.SandboxError as error:
        return {"refused": str(error)}
    except forks.Lost as lost:
        return {"lost": str(lost), "started": lost.started}


def main(path: Path) -> None:
    order = json.loads(path.read_text(encoding="ascii"))
    path.unlink()  # nothing of it is there when code runs
    print(json.dumps({"version": tiers.version()} | answer(order)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
