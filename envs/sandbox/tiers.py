"""Which protection holds on this machine, said aloud: in a tier's name, in the log, and by demand as an error."""

import functools
import hashlib
import logging
import os
import platform
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

DEMAND = "MARL_COOP_SANDBOX"  # environment variable: layers that must hold, with commas between
LAYERS = {
    "user": "a user of its own",
    "landlock": "no files",
    "memory": "a limit on memory",
    "seccomp": "no system calls but those of computing",
    "bubblewrap": "a view of its own on files, processes and network, for whole trees",
}


class SandboxError(RuntimeError):
    """The protection that was demanded does not hold on this machine, or the demand names an unknown layer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """How code is run: `kind`, the layers that hold, and for each other one why it does not.

    >>> print(Tier(kind="forks", layers=("memory", "seccomp"), missing={"landlock": "Function not implemented"}))
    forks+memory+seccomp (without landlock: Function not implemented)
    """

    kind: str
    layers: tuple[str, ...]
    missing: Mapping[str, str]

    @property
    def name(self) -> str:
        return "+".join((self.kind, *self.layers))

    @property
    def confined(self) -> bool:
        """Whether the kernel keeps code from files: without either layer there is what the interpreter refuses, which
        code can get around."""
        return not {"landlock", "seccomp", "bubblewrap"}.isdisjoint(self.layers)

    def __str__(self) -> str:
        missing = "; ".join(f"without {layer}: {why}" for layer, why in self.missing.items())
        return f"{self.name} ({missing})" if missing else self.name


@functools.cache
def version() -> str:
    """What verdicts follow from: Python's minor version and the text of this package."""
    texts = b"".join(file.read_bytes() for file in sorted(Path(__file__).parent.glob("*.py")))
    minor = ".".join(platform.python_version_tuple()[:2])
    return f"sandbox {hashlib.sha256(texts).hexdigest()[:8]} on Python {minor}"


def start(kind: str, layers: Collection[str], missing: Mapping[str, str]) -> Tier:
    """The tier with those layers that are not missing, after the log and the demand have heard of it.

    Only where code runs as the caller's own user is the log's line no warning: other layers stand in for that one.

    Raises:
        SandboxError: MARL_COOP_SANDBOX names a layer that is missing or that does not exist.
    """
    demanded = {word.strip() for word in os.environ.get(DEMAND, "").split(",")} - {""}
    if unknown := demanded - LAYERS.keys():
        raise SandboxError(f"{DEMAND} names {sorted(unknown)}; the layers are {', '.join(LAYERS)}.")
    for layer in demanded & missing.keys():
        raise SandboxError(
            f"{DEMAND} demands {layer} ({LAYERS[layer]}), which this machine does not have: {missing[layer]}. "
            f"Provide it, or take {layer} out of {DEMAND}."
        )
    tier = Tier(kind=kind, layers=tuple(layer for layer in layers if layer not in missing), missing=dict(missing))
    level = logging.INFO if missing.keys() <= {"user"} else logging.WARNING
    logging.getLogger("envs.sandbox").log(level, "sandbox: %s", tier)
    return tier
