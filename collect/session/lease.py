"""The boundaries that the machine lends to the core, so that a start can pass one with itself.

All is done with the control plane's lock held. The numbers are absolute: each step may be done
again after an interrupt, and changes nothing then.
"""

from __future__ import annotations

from typing import Protocol

from collect.membership.peer import Peer
from collect.native.communicator import Communicator


class Plane(Protocol):
    """What is needed of the control plane."""

    peer: Peer | None
    communicator: Communicator | None


class Lease:
    """Lends, takes back, and counts.

    Attributes:
        passed: the last boundary whose operation was started, or whose `admit` is over. One between
            it and the machine's `boundaries` is open: it waits for its operation.
    """

    def __init__(self, plane: Plane, *, is_auto: bool) -> None:
        self.passed = 0
        self._plane = plane
        self._is_auto = is_auto  # else starts are no boundaries, though the core counts them
        self._is_lent = False  # the core may have passed boundaries since it was asked

    def lend(self, limit: int) -> None:
        """Starts may pass boundaries up to `limit`, until the machine takes its next event."""
        assert self._plane.communicator is not None
        self._is_lent = True
        self._plane.communicator.lend(0, limit)

    def recall(self) -> None:
        """Starts pass no boundary any more, and those that they passed are counted."""
        if self._is_lent:
            self._count(0)

    def close_boundary(self) -> None:
        """The open boundary, if there is one, needs no operation behind it."""
        assert self._plane.peer is not None
        self._is_lent = True  # until it is known what the core says
        self._count(self._plane.peer.boundaries)

    def _count(self, passed: int) -> None:
        peer, communicator = self._plane.peer, self._plane.communicator
        assert peer is not None
        assert communicator is not None
        found = communicator.lend(passed if self._is_auto else 0, 0)
        self.passed = found if self._is_auto else max(self.passed, passed)
        peer.boundaries = max(peer.boundaries, self.passed)
        self._is_lent = False
