"""Work beside the page: what takes long runs in a thread of its own, can be cancelled, and answers only if it is still wanted."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import Any

from .sentences import sentence


class Superseded(Exception):
    """A newer job has taken this one's place."""


class Jobs:
    """One job of a kind at a time; a newer one of the kind takes the place of an older one, whose result is dropped.

    Parameters
    ----------
    say : called with a sentence when a job fails or is cancelled
    """

    def __init__(self, say: Callable[[str], None]):
        self.say = say
        self._latest: dict[str, threading.Thread] = {}

    def run(
        self, kind: str, work: Callable[[], Any], done: Callable[[Any], None], ended: Callable[[], None] = lambda: None
    ) -> None:
        """Start `work()`; unless a newer job of the kind was started, its result goes to `done`, and `ended` is called however
        it went."""

        def go() -> None:
            try:
                try:
                    found = work()
                    if self._latest.get(kind) is thread:
                        done(found)
                finally:
                    if self._latest.get(kind) is thread:
                        ended()
            except BaseException as error:  # a thread that dies silently would leave the visitor waiting
                if self._latest.get(kind) is thread:
                    self.say(sentence(error))

        thread = threading.Thread(target=go, name=f"explorer-{kind}", daemon=True)
        self._latest[kind] = thread
        thread.start()

    def check(self, kind: str) -> None:
        """Inside a job: end it quietly if a newer one of its kind has been started."""
        if self._latest.get(kind) is not threading.current_thread():
            raise Superseded

    def running(self, kind: str) -> bool:
        return kind in self._latest and self._latest[kind].is_alive()

    def cancel(self, kind: str) -> bool:
        """Ask a job to stop, at its next step of Python code; whether there was one."""
        if not self.running(kind):
            return False
        identity = ctypes.c_ulong(self._latest[kind].ident)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(identity, ctypes.py_object(KeyboardInterrupt))
        return True

    def wait(self, kind: str, seconds: float = 600) -> None:
        """Until the job is over (for tests)."""
        if kind in self._latest:
            self._latest[kind].join(seconds)
