"""What stops a program from outside, heard as Ctrl-C is."""

import signal

STOPPED = 130  # exit code


def hear_stops() -> None:
    """Let SIGTERM raise KeyboardInterrupt, and SIGHUP, which a terminal sends as it closes: not under `nohup`."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.default_int_handler)
