"""Status codes of the C core, as exceptions."""

from __future__ import annotations

import os

from collect import native
from collect.errors import (
    Aborted,
    Closed,
    CollectError,
    InvalidArgument,
    MembersChanged,
    OperationFailed,
)

# enum collect_status of collect.h, for code that must not load the core to compare.
OK = 0
PENDING = 1
E_INVALID = -1
E_SYSTEM = -3
E_ADDRESS = -4
E_ABORTED = -5
E_CLOSED = -6
E_FAILED = -7
E_BUSY = -8
E_FULL = -9
E_UNAVAILABLE = -10
E_MEMBERS = -11
E_TIMEOUT = -12
E_PEER = -13
E_TRUNCATED = -14
E_BOUNDARY = -15


class CoreError(CollectError):
    """The C core could not do what was asked; `status` and, for system calls, `errno` say why."""

    def __init__(self, message: str, status: int, errno: int = 0) -> None:
        super().__init__(message)
        self.status = status
        self.errno = errno

    def again(self) -> CoreError:
        return CoreError(self.message, self.status, self.errno)


def name(status: int) -> str:
    """The name in collect.h."""
    return str(native.ffi.string(native.lib.collect_status_name(status)).decode())


def check(status: int, what: str) -> None:
    """Raises unless `status` is 0. `what` says what was tried, as "cannot …" would go on."""
    if status != OK:
        raise exception(status, what)


def exception(status: int, what: str) -> CollectError:
    """The exception for a failed call that no verdict explains."""
    message = f"cannot {what}: {name(status)}"
    if status == E_SYSTEM:
        errno = native.ffi.errno
        return CoreError(f"{message} ({os.strerror(errno)})", status, errno)
    if status in (E_INVALID, E_ADDRESS):
        return InvalidArgument(message)
    if status == E_CLOSED:
        return Closed(message)
    if status == E_ABORTED:
        return Aborted(message)
    if status == E_UNAVAILABLE:
        return InvalidArgument(message, advice="use another dtype, op or algorithm")
    if status == E_MEMBERS:
        return MembersChanged(message)
    if status == E_FULL:
        return OperationFailed(message, advice="wait for earlier operations before starting more")
    if status == E_BUSY:
        return OperationFailed(
            message, advice="produce all of the operation before it, or wait for it, first"
        )
    return CoreError(message, status)
