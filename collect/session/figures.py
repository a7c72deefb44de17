"""What a link can do, from what it did: the kernel's figures, filtered."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from collect.native.communicator import LinkInfo
from collect.types import Incarnation, LinkFigures, View

# A rate counts only after as much as fills a path: less shows how much there was to send.
MOVED_BYTES_MIN = 4 << 20
# The best of so many rates: a link is now and then kept from being used.
RATES_KEPT = 8


@dataclass(slots=True)
class LinkRecord:
    sent_bytes: int = 0  # when a rate was last taken
    rtt_min_ns: int = 0
    rates: deque[int] = field(default_factory=lambda: deque(maxlen=RATES_KEPT))


class FigureBook:
    """The links of one group, by peer. One thread."""

    def __init__(self) -> None:
        self._links: dict[Incarnation, LinkRecord] = {}

    def add(self, links: Iterable[LinkInfo]) -> None:
        """A look at all links there are; those that are no more are forgotten."""
        records = {}
        for link in links:
            record = records[link.peer] = self._links.get(link.peer) or LinkRecord()
            if link.rtt_min_ns:
                record.rtt_min_ns = min(record.rtt_min_ns or link.rtt_min_ns, link.rtt_min_ns)
            if link.sent_bytes < record.sent_bytes:
                record.sent_bytes = 0  # opened anew
            # No rate: it is not known, or shared memory carries what goes that way.
            has_rate = link.delivery_bytes_per_s > 0
            if has_rate and link.sent_bytes - record.sent_bytes >= MOVED_BYTES_MIN:
                record.sent_bytes = link.sent_bytes
                record.rates.append(link.delivery_bytes_per_s)
        self._links = records

    def known(self, view: View) -> tuple[LinkFigures, ...]:
        """Of the members of a view, those of whom anything is known."""
        return tuple(
            LinkFigures(peer, record.rtt_min_ns, max(record.rates, default=0))
            for peer, record in self._links.items()
            if peer in view and (record.rtt_min_ns or record.rates)
        )
