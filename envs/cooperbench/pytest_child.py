"""Runs pytest and writes what became of each test: the child of `running`.

    python pytest_child.py MEMORY_MB TARGET...

One line of JSON per event, [test id, phase, outcome], goes to stdout; what tests print goes to stderr. A script of its
own because the task's Python runs it, in which this library is not installed. Python 3.8 or newer.
"""

import json
import os
import resource
import sys


def main():
    memory_mb, *targets = sys.argv[1:]
    channel = os.dup(1)
    os.dup2(2, 1)

    def say(*event):
        os.write(channel, json.dumps(event).encode() + b"\n")

    say("", "ready", "")
    limits = ((resource.RLIMIT_AS, int(memory_mb) * 2**20), (resource.RLIMIT_FSIZE, 2**28), (resource.RLIMIT_CORE, 0))
    for kind, value in limits:
        resource.setrlimit(kind, (value, value))
    sys.path[0] = os.getcwd()  # in the place of this script's folder, as `python -m pytest` has it

    class Reporter:
        def pytest_runtest_logreport(self, report):
            say(report.nodeid, report.when, "expected" if hasattr(report, "wasxfail") else report.outcome)

        def pytest_collectreport(self, report):
            if report.failed:
                say(report.nodeid, "collect", "failed")

    import pytest

    code = pytest.main(["-q", "-p", "no:cacheprovider", *targets], plugins=[Reporter()])
    say("", "end", str(int(code)))


if __name__ == "__main__":
    main()
