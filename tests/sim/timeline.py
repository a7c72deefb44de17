"""How a message reads in a timeline."""

from collect.wire.messages import CoordinatorMessage, PeerMessage


def shown(message: PeerMessage | CoordinatorMessage) -> str:
    """A message short enough for a timeline."""
    parts = [type(message).__name__]
    ballot = getattr(message, "ballot", None) or getattr(message, "epoch", None)
    view = getattr(message, "view", None)
    if view is not None:
        ballot = view.epoch
        parts.append("{" + ",".join(member.name for member in view.members) + "}")
    if ballot:
        parts.append(f"b{ballot >> 24}.{ballot & 0xFFFFFF}")
    for name in ("consumed", "in_flight", "verdict"):
        value = getattr(message, name, None)
        if value is not None and getattr(value, "op", 0):
            kind = getattr(value, "kind", None)
            parts.append(
                f"{name}={value.op >> 32}.{value.op & 0xFFFFFFFF}{':' + kind.name if kind else ''}"
            )
    for name in ("boundary", "boundaries", "reason", "detail"):
        if getattr(message, name, None):
            parts.append(f"{name}={getattr(message, name)}")
    return " ".join(parts)
