"""Work shared among threads, for what lets go of the interpreter lock: Pillow and dlib while they decode and detect."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from joblib import cpu_count

Task, Result = TypeVar("Task"), TypeVar("Result")


def in_order(work: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
    """`work(task)` of each task on all cores, given in the order of the tasks.

    Where one raises, or whoever asks stops asking, tasks that have not begun are dropped and those at work are waited for, so
    that nothing goes on behind the caller's back.
    """
    with ThreadPoolExecutor(cpu_count()) as pool:
        waiting = deque(pool.submit(work, task) for task in tasks)
        try:
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
