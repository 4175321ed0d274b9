"""The last step before a command of `run_in_tree`: confines itself and becomes the command."""

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
    os.closerange(3, report)
    os.closerange(report + 1, os.sysconf("SC_OPEN_MAX"))
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
