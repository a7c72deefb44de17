"""Who was in which epoch: results name their participants by it."""

from __future__ import annotations

from collections import OrderedDict

from collect.types import Ballot, Incarnation, View

VIEWS_KEPT_MAX = 256
NAMES_KEPT_MAX = 8192


class History:
    """The latest views by epoch, and the name of every peer that was in one.

    The control thread adds; any thread may ask, without a lock: each answer is one look-up.
    """

    def __init__(self) -> None:
        self._views: OrderedDict[Ballot, tuple[Incarnation, ...]] = OrderedDict()
        self._participants: dict[Ballot, tuple[str, ...]] = {}
        self._names: OrderedDict[Incarnation, str] = OrderedDict()

    def add(self, view: View) -> None:
        self._views[view.epoch] = view.incarnations
        self._participants[view.epoch] = tuple(member.name for member in view.members)
        if len(self._views) > VIEWS_KEPT_MAX:
            oldest, _ = self._views.popitem(last=False)
            del self._participants[oldest]
        for member in view.members:
            self._names[member.incarnation] = member.name
            self._names.move_to_end(member.incarnation)
        while len(self._names) > NAMES_KEPT_MAX:
            self._names.popitem(last=False)

    def participants(self, attempt: Ballot) -> tuple[Incarnation, ...]:
        """The members of an epoch in rank order."""
        return self._views.get(attempt, ())

    def participant_names(self, attempt: Ballot) -> tuple[str, ...]:
        """Their names."""
        return self._participants.get(attempt, ())

    def name(self, incarnation: Incarnation) -> str:
        return self._names.get(incarnation, f"{incarnation:x}")
