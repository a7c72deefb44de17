"""The only reader of the clock. Monotonic, the same one as the C core's (CLOCK_MONOTONIC)."""

from __future__ import annotations

import time


def now_s() -> float:
    """Seconds since an arbitrary start; never goes back."""
    return time.monotonic()


def now_ns() -> int:
    """The same in nanoseconds."""
    return time.monotonic_ns()
