"""Algorithms of the user's own: see `collect.plan`, `collect.Plan` and docs/plans.md."""

from __future__ import annotations

from collect.api.calls import Calls
from collect.errors import InvalidArgument
from collect.native.definition import Definition


class Plans(Calls):
    """The part of a Group that knows the user's own plans."""

    def register(self, definition: Definition) -> None:
        """Let calls of this group name a plan of your own as their `algorithm`.

        The plan is proven for the members that there are and for fewer, before this returns; when
        members come, it is proven for them before they are in. Local, and for as long as the group
        lives; every member registers the same before it calls for it. Members whose plans differ
        find out at the first call: it raises Mismatch on all of them. Registering a plan again does
        nothing.

        Where the plan's function adds no slice, or what it says after a change of the members is
        refused (which is logged), calls are done as by "auto", on all members: `Result.algorithm`
        tells. So are all-reduces of no elements. A plan runs over the links, also where members
        share memory.

        Args:
            definition: what `collect.plan` made.

        Raises:
            InvalidArgument: the proof failed; names what is wrong, and where. Or another plan has
                the same name.
            Closed: this peer left.
        """
        if not isinstance(definition, Definition):
            raise InvalidArgument(
                f"{definition!r} is no plan", advice="decorate a function with collect.plan(name)"
            )
        session = self._session
        session.check_open()
        definitions = session.control.definitions
        definitions.register(definition, session.communicator, lambda: session.place()[0])
        self._maker.signatures.define(definition.name, definition.collective, definition.number)
