"""Which members claim the same host. Whether they share memory, the data plane finds out itself."""

from collect.types import View


def numbers(view: View) -> tuple[int, ...]:
    """By rank: the number of the member's host, counted by first appearance."""
    first: dict[str, int] = {}
    return tuple(first.setdefault(member.host, len(first)) for member in view.members)
