"""Streams of task seeds: today's instances for small seeds, and no overlap for any."""

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.core import seeds
from envs.core.seeds import Stream, task_seed

RUNS = st.integers(0, 2**63 - 1) | st.integers(0, 3_000_000) | st.sampled_from([54_975, 54_976, 2_199_023, 2_199_024])
INDICES = st.integers(0, 2**40 - 1) | st.integers(999_990, 1_000_010) | st.integers(9_999_990, 10_000_010)
PLACES = st.tuples(st.sampled_from(Stream), RUNS, INDICES)


@given(PLACES, PLACES)
def test_no_two_tasks_of_any_streams_and_runs_have_one_seed(one, two):
    assert (task_seed(*one) == task_seed(*two)) == (one == two)


def test_runs_that_lie_side_by_side_do_not_run_into_each_other():
    for stream in Stream:
        each = stream.value[2]
        ends = [task_seed(stream, seed, index) for seed in (0, 1) for index in (0, each - 1)]
        assert len(set(ends)) == 4 and task_seed(stream, 0, min(each, 2**40 - 1)) not in ends[2:]


def test_small_seeds_give_the_instances_of_before():
    assert task_seed(Stream.TRAINING, 2, 5) == 2 * 10_000_000 + 5
    assert task_seed(Stream.AUDIT, 0, 5) == 2**39 + 5
    assert task_seed(Stream.WARM_UP, 0, 5) == 2**40 + 5
    assert task_seed(Stream.EVALUATION, 7, 5) == 2**41 + 7 * 1_000_000 + 5
    assert task_seed(Stream.VALIDATION, 7, 5) == 2**42 + 7 * 1_000_000 + 5


@pytest.mark.parametrize(
    ("seed", "index", "message"),
    [(-1, 0, "seed is -1"), (2**63, 0, "seed is"), (0, -1, "index is -1"), (0, 2**40, "index is")],
)
def test_what_has_no_place_in_a_stream_is_refused(seed, index, message):
    with pytest.raises(ValueError, match=message):
        task_seed(Stream.TRAINING, seed, index)


def test_the_worked_example():
    assert doctest.testmod(seeds) == doctest.TestResults(failed=0, attempted=3)
