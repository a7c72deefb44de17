"""The session of a sub-group."""

from __future__ import annotations

import threading
from typing import cast

from collect.errors import InvalidArgument
from collect.session.control import ControlPlane
from collect.session.operations import Session
from collect.session.scopes import ScopePlane
from collect.types import Incarnation


class ScopeSession(Session):
    """The session of a sub-group: operations without boundaries, nothing of membership.

    Made from the group's session, whose starts and its own take turns: so none comes between the
    last look at what is under way and a planned change of the members.
    """

    def __init__(self, root: Session, plane: ScopePlane) -> None:
        # Not Session's: nothing here joins, or runs on its own.
        self.root = root
        self.plane = plane
        self.config = root.config
        self.control = cast(ControlPlane, plane)
        self.maker = root.maker
        self.watcher = plane.watcher
        self.submitting = root.submitting
        self.is_auto = False
        self._limit_ns = 0
        self._placed = None
        self._leaver = None
        self._knows_state = True
        self._closing = threading.Lock()

    def open_boundary(self, limit_ns: int) -> None:
        """A start was refused: there are no boundaries here, but it waits while the group's members
        change."""
        del limit_ns
        with self.submitting:
            self.check_open()
            self.plane.lend()

    def check_open(self) -> None:
        self.plane.raise_if_final()
        self.root.check_open()

    def abort(self) -> None:
        """Ends every operation of the sub-group, on all its members. Messages are the group's."""
        self.check_open()
        self.communicator.abort()

    def close(self, *, is_orderly: bool) -> None:
        """Waits for what is under way, or gives it up; then it is used no more here. Idempotent."""
        with self._closing:
            if self.plane.is_closed:
                return
            if self.plane.final is None:
                if is_orderly:
                    self.consume_all()
                else:
                    self.communicator.abort()
            self.root.control.scopes.retire(self.plane)
            self.watcher.stop()


def root_session(session: Session) -> Session:
    """The group's, of a sub-group's."""
    return session.root if isinstance(session, ScopeSession) else session


def open_scope(session: Session, members: tuple[Incarnation, ...]) -> ScopeSession:
    """Makes a sub-group of members of a group or of one of its sub-groups."""
    root = root_session(session)
    session.check_open()
    if root.control.self_id not in members:
        raise InvalidArgument(
            "this peer is not among the members of the sub-group",
            advice="only its members make it: the others do not call",
        )
    return ScopeSession(root, root.control.scopes.create(members, root.limit_ns()))
