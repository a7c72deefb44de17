"""Waiting that a signal handler's exception cannot break.

KeyboardInterrupt may be raised in the main thread between any two steps of Python code, so also
inside `threading.Condition` and `threading.Event`, which are Python: their lock may then stay taken
for good. What waits here rests on single steps in C: a lock in a `with`, a queue.
"""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Callable

from collect.net.clock import now_s

LOOK_S = 0.5  # a waiting thread looks again so often; changes wake it at once


class Changes:
    """Wakes threads that wait for something to become true."""

    def __init__(self) -> None:
        self._waiters: set[queue.SimpleQueue[None]] = set()

    def notify(self) -> None:
        """Something has changed. Any thread."""
        for waiter in self._waiters.copy():
            waiter.put(None)

    def wait_for(self, is_true: Callable[[], bool], deadline_s: float | None = None) -> bool:
        """Waits until `is_true()`, which takes no lock, or the deadline: False.

        Whoever makes it true calls `notify` afterwards.
        """
        waiter: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._waiters.add(waiter)
        try:
            while not is_true():
                left_s = LOOK_S if deadline_s is None else deadline_s - now_s()
                if left_s <= 0:
                    return False
                with contextlib.suppress(queue.Empty):
                    waiter.get(timeout=min(left_s, LOOK_S))
            return True
        finally:
            self._waiters.discard(waiter)
