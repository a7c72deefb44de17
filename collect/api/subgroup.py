"""Sub-groups: some members of a group, with operations of their own."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

import numpy as np

from collect.api.exchanges import Exchanges
from collect.api.messages import Messages, require_tag
from collect.api.persistent import Preparations
from collect.api.reductions import Reductions
from collect.errors import InvalidArgument
from collect.session.messages import SCOPE_TAG_MAX, scope_tag
from collect.session.operations import Session
from collect.session.subgroups import ScopeSession, open_scope
from collect.types import Incarnation

INT64 = np.iinfo(np.int64)


class Splits(Exchanges):
    """The part of a Group, and of a SubGroup, that makes sub-groups."""

    def subgroup(self, ranks: Sequence[int | str]) -> SubGroup:
        """Make a sub-group of some members, which all of them call, and nobody else.

        It costs no message, no connection and no thread; a group has room for 1024. Calls of the
        group and of its sub-groups, this one included, are made in the same order by all members
        that make them, as if the sub-groups were one group.

        Args:
            ranks: ranks of the current view, or members' names; each member once, this one among
                them, the same list on each. Their order is that of the ranks in the sub-group.
                Ranks mean somebody else when a member was lost meanwhile; names do not, and
                `split` has all members agree.

        Raises:
            InvalidArgument: a malformed argument, or this peer is not in the list.
            OperationFailed: there are 1024 sub-groups, or they have 65536 members together.
            Timeout: a change of the members was under way, and did not end.
            MembershipLost: this process is no member any more.
        """
        members = _named(self._session, ranks)
        return SubGroup(open_scope(self._session, members))

    def split(self, color: int | None, key: int = 0) -> SubGroup | None:
        """Divide the members into sub-groups: those that pass the same color are in one.

        Every member calls this: it is an operation (an `all_gather` of 24 bytes). Whoever is lost
        meanwhile is in no sub-group, and all agree who that is.

        Args:
            color: a number of 64 bits, or None for no sub-group.
            key: where in the sub-group this member is: ranks follow the keys, then the ranks here.

        Returns this member's sub-group; None where the color is None.

        Raises as `all_gather` and `subgroup` do.
        """
        if color is not None:
            _require_int64(color, "color")
        _require_int64(key, "key")
        self._require_blocking(False, "split")
        told = np.array([color is not None, color or 0, key], np.int64)
        result = self.all_gather(told)
        rows = [tuple(int(word) for word in row) for row in result.array]
        if color is None:
            return None
        everybody = result._incarnations
        same = [rank for rank, row in enumerate(rows) if row[0] and row[1] == color]
        same.sort(key=lambda rank: rows[rank][2])
        members = tuple(everybody[rank] for rank in same)
        return SubGroup(open_scope(self._session, members))


class SubGroup(Reductions, Preparations, Messages, Splits):
    """Some members of a group; made by `subgroup` and `split`. A context manager: closes it.

    It has the collectives of a Group, among its members only, and its messages, with tags of its
    own. Members are let in and leave in the group alone: who is lost there is no member here any
    more either, and the others keep their order. What a Group promises of an operation that is
    interrupted, a SubGroup promises among its members.

    Any thread may call anything. Starts of the group's operations and of all its sub-groups' take
    turns.
    """

    def __init__(self, session: ScopeSession) -> None:
        super().__init__(session)
        self._scope_session = session

    def __enter__(self) -> SubGroup:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._scope_session.close(is_orderly=kind is None)

    def __repr__(self) -> str:
        config, plane = self._session.config, self._scope_session.plane
        state = "closed" if plane.is_closed else f"rank {self.rank} of {self.size}"
        return f"<collect.SubGroup of {config.group!r}: {', '.join(self.members)}; {state}>"

    @property
    def members(self) -> tuple[str, ...]:
        """The names of the current members, in rank order, this one among them."""
        return tuple(member.name for member in self._session.view.members)

    def abort(self) -> None:
        """End every operation of the sub-group that is under way, on all its members: they raise
        Aborted. Does not block. Messages are not ended; see `Transfer.cancel`."""
        self._session.abort()

    def close(self) -> None:
        """Complete what is under way here, and use the sub-group no more. Idempotent.

        Every member closes it, where it is in the order of calls. What it holds is freed when a
        later operation of the group completes, because a member that lags may need it until then.
        Leaving the group closes its sub-groups.
        """
        self._scope_session.close(is_orderly=True)

    def _carried(self, tag: int) -> tuple[Session, int]:
        """Messages go over the group's channels, each with a tag that no other sub-group has."""
        require_tag(tag, SCOPE_TAG_MAX)
        session = self._scope_session
        session.check_open()
        return session.root, scope_tag(session.plane.scope, tag)

    def _kill_at(self, frame: int, op_index: int = 0) -> None:
        """Fail-point for tests: as Group's, at frames of the sub-group's operations."""
        self._session.kill_at(op_index, frame)


def _named(session: Session, ranks: Sequence[int | str]) -> tuple[Incarnation, ...]:
    """The members that the caller lists, each once."""
    if isinstance(ranks, str) or not isinstance(ranks, (Sequence, range, np.ndarray)):
        raise InvalidArgument(f"ranks is {ranks!r}; it must be a list of ranks or names")
    plain = [int(each) if isinstance(each, np.integer) else each for each in ranks]
    if not plain:
        raise InvalidArgument("ranks is empty; a sub-group has one member at least")
    view = session.view
    members = tuple(session.member_of(each, "a member of ranks", view) for each in plain)
    for member in members:
        if members.count(member) > 1:
            raise InvalidArgument(f"ranks lists {view.name_of(member)} twice")
    return members


def _require_int64(value: object, role: str) -> None:
    is_number = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not is_number or not INT64.min <= int(value) <= INT64.max:  # type: ignore[call-overload]
        raise InvalidArgument(f"{role} is {value!r}; it must be a number of 64 bits")
