"""Calls timed across hosts; of the network tests and benchmarks/wan.py."""

from typing import Any

from tests.net.namespaces import Net
from tests.net.peers import timing

Times = dict[str, float]
Call = tuple[str, str, int, int]  # label, algorithm, bytes, repeats

# A recipe is looked at again after four timeouts: in a benchmark that is never.
LEARNS_NOTHING_S = 120.0


def timed(
    here: Net,
    calls: list[Call],
    *,
    address: str,
    settings: list[dict[str, Any]],
    timeout_s: float = LEARNS_NOTHING_S,
    **common: Any,
) -> Times:
    """Seconds per call of each label, the slowest peer's.

    Args:
        here: a coordinator starts on the first host, a peer on each.
        address: of the first host.
        settings: of each peer; common: of all.
    """
    port = here.start_coordinator(here.hosts[0], "0.0.0.0:0", timeout_s)
    peers = [
        here.peer(
            host,
            timing,
            chr(ord("a") + index),
            f"{address}:{port}",
            min_peers=len(here.hosts),
            calls=calls,
            **{**common, **settings[index]},
        )
        for index, host in enumerate(here.hosts)
    ]
    for peer in peers:
        peer.told("joined")
    times: Times = {}
    for label in [call[0] for call in calls]:
        told = [peer.told("timed", 600) for peer in peers]
        assert {each["label"] for each in told} == {label}
        times[label] = max(each["seconds"] for each in told)
    assert [peer.wait() for peer in peers] == [0] * len(peers)
    return times
