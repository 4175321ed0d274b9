"""The last step before a command of `run_in_tree`: confines itself and becomes the command."""

import contextlib
import json
import os
import sys

import kernel
import wire


def main(order: str) -> None:
    """Carry out an order: JSON with what to lay on and what to become.

    `limits`; `user`, a number or null; `landlock`, the paths to read and to write or null; `folder`; `command`; and
    `report`, a descriptor that gets READY before the command starts and the reason if it does not.
    """
    _become(**json.loads(order))


def _become(limits, user, landlock, folder, command, report):
    for descriptor in map(int, os.listdir("/dev/fd")):  # there may be room for a billion
        if descriptor > 2 and descriptor != report:
            with contextlib.suppress(OSError):  # that of the listing
                os.close(descriptor)
    os.set_inheritable(report, False)
    try:
        if landlock is not None:
            kernel.landlock(kernel.ruleset(*map(tuple, landlock)))
        kernel.limit(**limits)
        if user is not None:
            kernel.become(user)
        elif os.geteuid() == 0:
            kernel.drop_rights()
        os.chdir(folder)
        os.write(report, wire.READY)
        os.execvp(command[0], command)
    except OSError as error:
        os.write(report, f"{command[0]}: {error}".encode())
        sys.exit(1)
