"""A limit on the time that a piece of work may take, on any thread and platform."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class OutOfTime(Exception):
    """Raised inside the block of `deadline` when its time is up."""


@contextmanager
def deadline(seconds: float | None) -> Iterator[None]:
    """The block raises `OutOfTime` once it has taken `seconds`; None sets no limit.

    Signals work on the main thread and on Unix only, and a thread cannot be killed. So the interpreter is asked
    to raise the exception in the thread that runs the block, which it does at that thread's next step of Python code: a
    single call into compiled code (one batch, one matrix decomposition) is finished first.

    Raises
    ------
    ValueError : `seconds` is not above 0.
    """
    if seconds is None:
        yield
        return
    if not seconds > 0:
        raise ValueError(f"method_timeout: got {seconds!r}; seconds above 0, or None for no limit, are accepted")
    thread, lock, done = ctypes.c_ulong(threading.get_ident()), threading.Lock(), False

    def ring():
        with lock:
            if not done:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(OutOfTime))

    alarm = threading.Timer(min(seconds, threading.TIMEOUT_MAX), ring)
    alarm.daemon = True
    alarm.start()
    try:
        yield
    finally:
        with lock:
            done = True
            ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, None)  # one that was asked for and not yet raised
        alarm.cancel()
