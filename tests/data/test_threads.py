"""Work in threads: in the order of the tasks, and nothing goes on behind the caller's back."""

import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from joblib import cpu_count

from helpers.data.threads import in_order


@settings(max_examples=30)
@given(st.lists(st.integers(0, 3), max_size=40))
def test_results_come_in_the_order_of_the_tasks(waits):
    def work(task):
        time.sleep(task[1] / 1000)
        return task

    tasks = list(enumerate(waits))
    assert list(in_order(work, tasks)) == tasks


@pytest.mark.parametrize("ending", ["an error", "nobody asks any more"])
def test_tasks_at_work_are_waited_for_and_the_others_dropped(ending):
    begun, ended, lock = [], [], threading.Lock()

    def work(task):
        with lock:
            begun.append(task)
        if task == 0 and ending == "an error":
            raise ValueError("task 0")
        time.sleep(0.05)
        with lock:
            ended.append(task)

    found = in_order(work, range(1000))
    if ending == "an error":
        with pytest.raises(ValueError, match="task 0"):
            list(found)
    else:
        next(found)
        found.close()
    seen = sorted(begun)
    assert set(ended) | {0} == set(seen), "what had begun has ended"
    time.sleep(0.1)
    assert sorted(begun) == seen and len(seen) <= 3 * cpu_count() + 2, "and nothing more begins"
