"""Messages from one member to another: send, recv, sendrecv."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Generator
from typing import Any, Literal, overload

import numpy as np

from collect.api.calls import Calls
from collect.api.work import seconds
from collect.errors import CollectError, InvalidArgument
from collect.native import status
from collect.native.buffer import Array, packed, require_writable, view_of
from collect.native.message import Message, MessageInfo
from collect.session import messages
from collect.session.messages import TAG_MAX
from collect.session.operations import Session

Peer = int | str

_unpacking = threading.Lock()  # never held while anything waits


class Delivery:
    """A message that has arrived.

    Attributes:
        array: what was passed to `send` or `recv`.
        peer: name of the other end.
        bytes: length of the message.
        count: the same in elements of `array`; a remainder is left out.
        submitted_ns, completed_ns: when it was called and complete here, of time.monotonic_ns().
    """

    __slots__ = ("array", "bytes", "completed_ns", "count", "peer", "submitted_ns")

    def __init__(self, array: Any, itemsize: int, peer: str, facts: MessageInfo) -> None:
        self.array = array
        self.peer = peer
        self.bytes = facts.bytes
        self.count = facts.bytes // itemsize
        self.submitted_ns = facts.submitted_ns
        self.completed_ns = facts.completed_ns

    def __repr__(self) -> str:
        return f"<collect.Delivery of {self.bytes} bytes, other end {self.peer}>"

    @property
    def duration_s(self) -> float:
        """Seconds from the call to the completion here."""
        return (self.completed_ns - self.submitted_ns) / 1e9


class Transfer:
    """A message under way; made by `send`, `recv` and `sendrecv` with `async_op=True`.

    The array belongs to the group until it is done. A Transfer that is dropped goes on all the
    same. Wait for it in a thread with `wait()`, or with `await` in a coroutine. Any thread may call
    anything.
    """

    def __init__(self, session: Session, message: Message, array: Any, view: Array) -> None:
        self._session = session
        self._message = message
        self._array = array
        self._view = view
        self._delivery: Delivery | None = None

    def __repr__(self) -> str:
        return f"<collect.Transfer, {'done' if self.done() else 'under way'}>"

    def done(self) -> bool:
        """Whether it has arrived or failed. Never blocks."""
        return self._message.poll() != status.PENDING

    def wait(self, timeout: float | None = None) -> Delivery:
        """Blocks until it has arrived.

        Args:
            timeout: seconds to wait here; None waits as long as the message may take.

        Raises as `Group.send` and `Group.recv` do, and Timeout when only this wait was too short;
        then it goes on.
        """
        messages.wait(self._session, self._message, seconds(timeout, "timeout"))
        with _unpacking:
            if self._delivery is None:
                self._delivery = self._unpack()
        return self._delivery

    def __await__(self) -> Generator[Any, None, Delivery]:
        """`await transfer` gives the delivery, or raises, as `wait` does."""
        if not self.done():
            loop = asyncio.get_running_loop()
            future = loop.create_future()
            self._session.watcher.watch(self._message, loop, future)
            yield from future
        return self.wait()

    def cancel(self) -> None:
        """End it here, unless it is done: `wait` raises Aborted. The array is the caller's again.

        At the other end a message that was under way fails with PeerLost; one that was not is as
        if it had never been.
        """
        self._message.cancel()

    def _unpack(self) -> Delivery:
        message = self._message
        if not message.is_send and message.array is not self._view:
            np.copyto(self._view, message.array)
        facts = message.facts
        name = self._session.name_of(facts.peer)
        return Delivery(self._array, self._view.itemsize, name, facts)


class Messages(Calls):
    """The part of a Group that sends messages."""

    @overload
    def send(
        self,
        array: Any,
        peer: Peer,
        *,
        tag: int = 0,
        async_op: Literal[False] = False,
        timeout: float | None = None,
    ) -> Delivery: ...

    @overload
    def send(
        self,
        array: Any,
        peer: Peer,
        *,
        tag: int = 0,
        async_op: Literal[True],
        timeout: float | None = None,
    ) -> Transfer: ...

    def send(
        self,
        array: Any,
        peer: Peer,
        *,
        tag: int = 0,
        async_op: bool = False,
        timeout: float | None = None,
    ) -> Delivery | Transfer:
        """Send an array to one member, which calls `recv`.

        Only the two take part; it is no operation of the group, needs no order among those, and a
        change of the members does not touch it as long as both stay. Messages of the same pair and
        tag are received in the order in which they were sent. It is complete when the receiver has
        all of it, so two members that send to each other before they receive wait for ever: use
        `sendrecv`, or `async_op`. It may also be sent to this member itself.

        Args:
            array: shape and dtype as for `all_reduce`; is only read. Its bytes are what is sent:
                neither shape nor dtype is compared with the receiver's.
            peer: a rank of the current view or a member's name.
            tag: 0 to 2**64 - 1.
            async_op: return a Transfer at once. The array must stay as it is until that is done.
            timeout: seconds that it may take; None: as for `all_reduce`.

        Raises:
            Timeout: it was not received in time.
            PeerLost: the peer is no member, its link was lost, or it gave the message up; it may
                have arrived.
            InvalidArgument: a malformed argument, or the receiver's array is too small.
            Aborted: this member called `abort`, or cancelled it.
            OperationFailed: more than 4096 messages are pending here.
            MembershipLost: this process is no member any more.
        """
        view, _ = view_of(array, "array")
        source = packed(view)
        return self._transfer(
            array,
            view,
            source,
            peer=peer,
            tag=tag,
            async_op=async_op,
            timeout=timeout,
            is_send=True,
        )

    @overload
    def recv(
        self,
        array: Any,
        peer: Peer | None = None,
        *,
        tag: int = 0,
        async_op: Literal[False] = False,
        timeout: float | None = None,
    ) -> Delivery: ...

    @overload
    def recv(
        self,
        array: Any,
        peer: Peer | None = None,
        *,
        tag: int = 0,
        async_op: Literal[True],
        timeout: float | None = None,
    ) -> Transfer: ...

    def recv(
        self,
        array: Any,
        peer: Peer | None = None,
        *,
        tag: int = 0,
        async_op: bool = False,
        timeout: float | None = None,
    ) -> Delivery | Transfer:
        """Receive what a member sends with `send`.

        Args:
            array: shape and dtype as for `all_reduce`, writable; receives the message's bytes from
                its beginning, in C order. It may be larger than the message. Undefined after a
                failure.
            peer: a rank of the current view or a member's name. None: any; `peer` of what is
                returned tells who it was.
            tag: as the sender's.
            async_op: return a Transfer at once.
            timeout: as for `send`.

        Raises as `send` does. A recv from any member does not fail when one is lost, unless it is
        the one whose message was under way.
        """
        view, _ = view_of(array, "array")
        require_writable(view, "array", "pass other memory")
        return self._transfer(
            array,
            view,
            packed(view),
            peer=peer,
            tag=tag,
            async_op=async_op,
            timeout=timeout,
            is_send=False,
        )

    def sendrecv(
        self,
        send_array: Any,
        to: Peer,
        recv_array: Any,
        source: Peer | None = None,
        *,
        tag: int = 0,
        recv_tag: int | None = None,
        timeout: float | None = None,
    ) -> Delivery:
        """Send and receive at once: `send(send_array, to)` and `recv(recv_array, source)`.

        Args:
            send_array, recv_array: as for `send` and `recv`; they share no memory.
            to, source: whom to send to and, None being any, receive from.
            tag: of what is sent and, without `recv_tag`, of what is received.
            timeout: seconds that both together may take.

        Returns what `recv` does. Raises as both do; when one fails the other is cancelled.
        """
        recv_tag = tag if recv_tag is None else recv_tag
        sent, _ = view_of(send_array, "send_array")
        received, _ = view_of(recv_array, "recv_array")
        if np.may_share_memory(sent, received):
            raise InvalidArgument(
                "send_array and recv_array overlap", advice="pass separate memory"
            )
        receipt = self.recv(recv_array, source, tag=recv_tag, async_op=True, timeout=timeout)
        try:
            transfer = self.send(send_array, to, tag=tag, async_op=True, timeout=timeout)
            try:
                transfer.wait()
                return receipt.wait()
            except BaseException:
                _cancel(transfer)
                raise
        except BaseException:
            _cancel(receipt)
            raise

    def _transfer(
        self,
        array: Any,
        view: Array,
        memory: Array,
        *,
        peer: Peer | None,
        tag: int,
        async_op: bool,
        timeout: float | None,
        is_send: bool,
    ) -> Delivery | Transfer:
        limit_s = seconds(timeout, "timeout")
        carrier, carried = self._carried(tag)
        member = 0 if peer is None and not is_send else self._session.member_of(peer, "peer")
        message = messages.start(carrier, memory, member, carried, limit_s, is_send=is_send)
        transfer = Transfer(carrier, message, array, view)
        if async_op:
            return transfer
        try:
            return transfer.wait()
        except BaseException:
            _cancel(transfer)
            raise

    def _carried(self, tag: int) -> tuple[Session, int]:
        """The session whose messages these are, and their tag there."""
        require_tag(tag, TAG_MAX)
        return self._session, tag


def require_tag(tag: Any, last: int) -> None:
    """Checks a tag that a caller passed; `last` is one less than a power of two."""
    if isinstance(tag, bool) or not isinstance(tag, int) or not 0 <= tag <= last:
        bits = last.bit_length()
        raise InvalidArgument(f"tag is {tag!r}; it must be a number of 0 to 2**{bits} - 1")


def _cancel(transfer: Transfer) -> None:
    """What failed or was interrupted must not write into the caller's memory afterwards."""
    try:
        transfer.cancel()
    except CollectError:  # closed: then it has ended
        return
