"""Work in a process of its own, whose memory and threads are its own."""

import signal
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, get_context
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def in_fresh_process(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """What a function of a module returns from a process that begins from nothing, and ends with this one's wait."""
    ignored = (signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches it too, and it is for this process to say so
    pool = ProcessPoolExecutor(1, get_context("spawn"), initializer=signal.signal, initargs=ignored)
    try:
        return pool.submit(function, *args, **kwargs).result()
    except BrokenProcessPool:
        raise SystemExit("error: the process that measures was killed; is there memory for it?") from None
    except KeyboardInterrupt:
        for process in active_children():
            process.terminate()
        raise
    finally:
        pool.shutdown()
