"""Messages of a session: starting them, waiting for them, saying why they failed."""

from __future__ import annotations

from collect.errors import (
    Aborted,
    CollectError,
    InvalidArgument,
    OperationFailed,
    PeerLost,
    Timeout,
)
from collect.native import status
from collect.native.buffer import Array
from collect.native.message import Message
from collect.native.operation import NS_PER_S
from collect.net.clock import now_ns, now_s
from collect.session.operations import POLL_S, Session

TAG_MAX = 2**64 - 1
# Of a sub-group's messages: the upper half of the group's tags, the scope, a tag of 32 bits.
SCOPE_TAG_BIT = 2**63
SCOPE_TAG_BITS = 32
SCOPE_TAG_MAX = 2**SCOPE_TAG_BITS - 1


def scope_tag(scope: int, tag: int) -> int:
    """The group's tag of a sub-group's message."""
    return SCOPE_TAG_BIT | scope << SCOPE_TAG_BITS | tag


def start(
    session: Session,
    array: Array,
    peer: int,
    tag: int,
    timeout_s: float | None,
    *,
    is_send: bool,
) -> Message:
    """Starts a message; `peer` is an incarnation, 0: any. Neither waits nor passes a boundary."""
    session.check_open()
    communicator = session.communicator
    message = Message(communicator.core, array, peer, tag, is_send=is_send)
    found = communicator.start_message(message, now_ns() + session.limit_ns(timeout_s))
    if session.control.final is not None:
        communicator.cancel_messages()
    if found == status.OK:
        return message
    if found == status.E_FULL:
        raise OperationFailed(
            "too many messages are pending", advice="wait for earlier ones before starting more"
        )
    if found == status.E_PEER:
        raise _lost(session, message, peer)
    raise status.exception(found, "start a message")


def wait(session: Session, message: Message, timeout_s: float | None = None) -> None:
    """Returns when the message has arrived; raises why it failed."""
    deadline_s = None if timeout_s is None else now_s() + timeout_s
    while True:
        left_s = POLL_S if deadline_s is None else deadline_s - now_s()
        found = message.wait(left_s)
        if found == status.OK:
            return
        if found != status.PENDING:
            raise failure(session, message)
        if deadline_s is not None and now_s() >= deadline_s:
            raise Timeout(
                f"the {_what(session, message)} is not complete after {timeout_s:g} s",
                epoch=session.epoch,
                advice="it goes on: wait again, or cancel it",
            )


def failure(session: Session, message: Message) -> CollectError:
    """Why a message failed."""
    facts = message.facts
    final = session.control.final
    if facts.status in (status.E_ABORTED, status.E_CLOSED) and final is not None:
        return final.again()
    what = _what(session, message)
    if facts.status == status.E_ABORTED:
        return Aborted(f"the {what} was cancelled here", epoch=session.epoch)
    if facts.status == status.E_TIMEOUT:
        limit_s = (facts.completed_ns - facts.submitted_ns) / NS_PER_S
        call = "recv" if message.is_send else "send"
        return Timeout(
            f"the {what} did not complete within {limit_s:.3g} s",
            peer=session.name_of(message.peer) if message.peer else None,
            epoch=session.epoch,
            advice=f"find out why the other side's {call} did not come, or pass a larger timeout",
        )
    if facts.status == status.E_PEER:
        return _lost(session, message, facts.peer or message.peer)
    if facts.status == status.E_TRUNCATED:
        return _truncated(session, message, facts.bytes)
    return status.exception(facts.status, f"complete the {what}")


def _what(session: Session, message: Message) -> str:
    """ "send to b (tag 3)" """
    peer = session.name_of(message.peer) if message.peer else "any member"
    verb = "send to" if message.is_send else "recv from"
    tag = message.tag & SCOPE_TAG_MAX if message.tag & SCOPE_TAG_BIT else message.tag
    return f"{verb} {peer} (tag {tag})"


def _lost(session: Session, message: Message, peer: int) -> PeerLost:
    name = session.name_of(peer)
    doubt = "; it may have arrived" if message.is_send and message.is_submitted else ""
    return PeerLost(
        f"the {_what(session, message)} failed{doubt}: {name} is no member, its link was lost, or "
        "it gave the message up",
        peer=name,
        epoch=session.epoch,
        advice="send or receive it again if both are members still",
    )


def _truncated(session: Session, message: Message, byte_count: int) -> InvalidArgument:
    what = _what(session, message)
    if message.is_send:
        text = f"the {what} failed: the receiver's array is smaller than its {byte_count} bytes"
    else:
        text = (
            f"the {what} failed: the message has {byte_count} bytes, the array "
            f"{message.array.nbytes}"
        )
    return InvalidArgument(text, epoch=session.epoch, advice="receive into a larger array")
