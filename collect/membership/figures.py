"""Which figures of links are worth a message."""

from collections.abc import Sequence

from collect.types import LinkFigures

NEWS_PERCENT = 10


def is_news(told: Sequence[LinkFigures], links: Sequence[LinkFigures]) -> bool:
    """Whether anything changed by more than NEWS_PERCENT, or a link is new."""
    before = {link.incarnation: link for link in told}
    return any(
        link.incarnation not in before
        or differs(before[link.incarnation].rtt_min_ns, link.rtt_min_ns)
        or differs(before[link.incarnation].delivery_bytes_per_s, link.delivery_bytes_per_s)
        for link in links
    )


def differs(old: int, new: int) -> bool:
    return abs(new - old) * 100 > NEWS_PERCENT * old
