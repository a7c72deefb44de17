"""The user's own algorithms of a group: known to the core for each number of members.

An operation that is under way when members are lost runs again in the smaller world at once. So the
definitions of that world are in the core before its view is: those of a few smaller worlds since
the registration, any other is made, on the control thread, on the way to the view. They follow from
the members' number alone: either all members have a plan for a world, or none.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator

from collect.errors import InvalidArgument
from collect.native.communicator import Communicator
from collect.native.definition import Definition

log = logging.getLogger("collect")

WORLDS_AHEAD = 16  # so many members may be lost before a definition's function is called again


class Definitions:
    """Those of one group. `prepare` is called with the lock of the control plane held."""

    def __init__(self, lock: threading.Lock) -> None:
        self._lock = lock
        self._known: dict[str, tuple[Definition, set[int]]] = {}  # with worlds it was asked for

    def register(
        self, definition: Definition, communicator: Communicator, size: Callable[[], int]
    ) -> None:
        """Proves a definition for `size()` members and fewer, and keeps it. Any thread.

        Raises InvalidArgument: it is refused, and why; or the name has another definition. What its
        function raises.
        """
        self._require_same(definition)
        worlds: set[int] = set()
        while True:
            count = size()
            for world in _ahead(count):
                if world not in worlds:
                    reason = communicator.define(definition, world)
                    if reason is not None:
                        raise InvalidArgument(
                            f"the plan {definition.name!r} is wrong for {world} ranks: {reason}"
                        )
                    worlds.add(world)
            with self._lock:
                if size() == count:  # no view came in between, and none can now
                    self._require_same(definition)
                    self._known.setdefault(definition.name, (definition, worlds))
                    return

    def _require_same(self, definition: Definition) -> None:
        known = self._known.get(definition.name)
        if known is not None and known[0].number != definition.number:
            raise InvalidArgument(
                f"another plan is registered as {definition.name!r}", advice="give it its own name"
            )

    def prepare(self, count: int, communicator: Communicator) -> None:
        """Before a view of `count` members is installed. Where a definition is refused, calls that
        name it are done as by "auto", on all members."""
        for definition, worlds in self._known.values():
            for world in _ahead(count):
                if world in worlds:
                    continue
                worlds.add(world)
                try:
                    reason = communicator.define(definition, world)
                except Exception as error:  # the user's function may raise anything
                    reason = repr(error)
                if reason is not None:
                    log.error(
                        "the plan %r is wrong for %d ranks, where calls do without it: %s",
                        definition.name,
                        world,
                        reason,
                    )


def _ahead(count: int) -> Iterator[int]:
    """The worlds that must be ready, the current one first."""
    yield from range(count, max(1, count - 1 - WORLDS_AHEAD), -1)
