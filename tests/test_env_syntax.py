import gc
import threading
import time

from envs.core.syntax import parse


class _SlowToGo:
    """In a circle with itself, so that the collector lets it go: in the middle of what a thread does, with a pause."""

    def __init__(self):
        self.me = self

    def __del__(self):
        time.sleep(0.0005)


def test_threads_that_parse_at_once_all_get_their_trees():
    failed = []

    def work():
        for depth in range(200):
            _SlowToGo()
            try:
                parse("f(" * (depth % 20) + "{1: [a, b]}" + ")" * (depth % 20), mode="eval")
            except SystemError as error:
                failed.append(error)

    thresholds = gc.get_threshold()
    gc.set_threshold(1)
    threads = [threading.Thread(target=work) for _ in range(3)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        gc.set_threshold(*thresholds)
    assert not failed
