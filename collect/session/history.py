"""Who was in which epoch: results name their participants by it."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from collect.types import Ballot, Incarnation, View

VIEWS_KEPT_MAX = 256
NAMES_KEPT_MAX = 8192


class Participants(NamedTuple):
    """The members of an epoch, in rank order."""

    epoch: Ballot
    incarnations: tuple[Incarnation, ...]
    names: tuple[str, ...]


class History:
    """The latest views by epoch, and the name of every peer that was in one.

    The control thread adds; any thread may ask, without a lock: each answer is one look-up.
    """

    def __init__(self) -> None:
        self._views: OrderedDict[Ballot, Participants] = OrderedDict()
        self.latest = Participants(0, (), ())
        self._names: OrderedDict[Incarnation, str] = OrderedDict()
        self._latest_of: dict[str, Incarnation] = {}  # by name; of those in `_names`

    def add(self, view: View) -> None:
        names = tuple(member.name for member in view.members)
        self.latest = Participants(view.epoch, view.incarnations, names)
        self._views[view.epoch] = self.latest
        if len(self._views) > VIEWS_KEPT_MAX:
            self._views.popitem(last=False)
        for member in view.members:
            self._names[member.incarnation] = member.name
            self._names.move_to_end(member.incarnation)
            self._latest_of[member.name] = member.incarnation
        while len(self._names) > NAMES_KEPT_MAX:
            oldest, name = self._names.popitem(last=False)
            if self._latest_of.get(name) == oldest:
                del self._latest_of[name]

    def of(self, attempt: Ballot) -> Participants:
        """Those of an epoch; nobody, when it is too long ago."""
        return self._views.get(attempt) or Participants(attempt, (), ())

    def find(self, name: str) -> Incarnation | None:
        """Who had this name last, also when it is no member any more."""
        return self._latest_of.get(name)

    def name(self, incarnation: Incarnation) -> str:
        return self._names.get(incarnation, f"{incarnation:x}")
