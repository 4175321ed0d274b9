"""The last step before a command of `run_in_tree`: confines itself and becomes the command. A script of `envs.sandbox`.

Its one argument is JSON: `limits`, `user` (a number or null), `landlock` (paths to read and to write, or null),
`folder`, `command`, and `report`: a descriptor that gets READY before the command starts, and a reason if it does not.
"""

import json
import os
import sys

import kernel
import wire


def main(limits, user, landlock, folder, command, report):
    os.set_inheritable(report, False)
    try:
        if landlock is not None:
            kernel.landlock(kernel.ruleset(*map(tuple, landlock)))
        kernel.limit(**limits)
        if user is not None:
            kernel.become(user)
        os.chdir(folder)
        os.write(report, wire.READY)
        os.execvp(command[0], command)
    except OSError as error:
        os.write(report, f" {command[0]}: {error}".encode())
        sys.exit(1)


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
