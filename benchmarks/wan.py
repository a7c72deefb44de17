"""Uneven and long links: what owner shares, few hops and several streams are worth.

    make bench-wan            (as root; all of it in network namespaces)
    python -m benchmarks.wan --only uneven --json wan.json

  uneven   five hosts on a bridge, tbf on both ends of each; one has a tenth of the others' rate. A
           direct exchange whose shares follow the rates that peers state, one whose shares
           follow what was measured, an even one, and the ring. The bound is the payload over the
           slowest rate: what that host must send, and receive, whatever is done.
  long     eight hosts, 100 ms there and back (tests/net/wan.c): 1 MiB by direct, star and ring.
  streams  two hosts, 100 ms, packets lost at random: one stream, four, as many as bring more.

Times are of a call, all peers' mean over back-to-back calls, the slowest peer's; after two calls
that are not counted.
"""

import argparse
import json
import tempfile
from pathlib import Path

from tests.net.namespaces import compile_wan, net
from tests.net.timing import LEARNS_NOTHING_S, Call, Times, timed

MIB = 1 << 20
MBIT = 1_000_000
FAST, SLOW = 100 * MBIT, 10 * MBIT
# The last chunks of all owners come back when everything else is done: small ones, so that this is
# short beside the payload.
CHUNK = {"COLLECT_CHUNK_BYTES": str(32 * 1024)}
LEARNS_S = 2.0  # timeout: a recipe is looked at again after four of them
Calls = list[Call]


def uneven(payload_bytes: int = 4 * MIB, repeats: int = 4) -> Times:
    """One of five hosts at a tenth of the rate."""
    rates = [FAST, FAST, SLOW, FAST, FAST]
    plain = [{"environment": CHUNK}] * 5
    stated = [{"environment": {**CHUNK, "COLLECT_BANDWIDTH": f"{rate}bit"}} for rate in rates]
    warm = ("warm", "direct", payload_bytes, 3)  # new connections are slow for a while
    even: Calls = [warm, ("direct", "direct", payload_bytes, repeats)]
    both: Calls = [*even, ("ring", "ring", payload_bytes, repeats)]
    learnt: Calls = [("learn", "direct", payload_bytes, 1), *even]
    times: Times = {"bound": payload_bytes * 8 / SLOW}
    for suffix, calls, settings, timeout_s in (
        (", stated rates", even, stated, LEARNS_NOTHING_S),
        (", measured rates", learnt, plain, LEARNS_S),
        (", even", both, plain, LEARNS_NOTHING_S),
    ):
        with net(5) as here:
            for host, rate in zip(here.hosts, rates, strict=True):
                host.shape(rate, queue_ms=100)
            address = here.hosts[0].ipv4
            found = timed(here, calls, address=address, settings=settings, timeout_s=timeout_s)
            found = {label: found[label] for label in ("direct", "ring") if label in found}
            times |= {label + suffix: seconds for label, seconds in found.items()}
    return times


def long(
    program: Path, *, payload_bytes: int = MIB, repeats: int = 10, rate_bits: int = 1000 * MBIT
) -> Times:
    """Eight hosts, 100 ms there and back."""
    names = ("direct", "star", "ring")
    calls: Calls = [(name, name, payload_bytes, repeats) for name in names]
    times: Times = {}
    # With a commit an operation takes one hop more; a small one does not commit.
    for suffix, commit_bytes in ("", payload_bytes + 1), (", with a commit", 0):
        environment = {"COLLECT_COMMIT_BYTES": str(commit_bytes)}
        common = {"environment": environment, "interface": "wan0"}
        with net(8) as here, here.long_links(program, delay_ms=50, rate_bits=rate_bits):
            found = timed(here, calls, address="10.78.0.1", settings=[{}] * 8, **common)
            times |= {label + suffix: seconds for label, seconds in found.items()}
    return times


def streams(program: Path, payload_bytes: int = 8 * MIB, repeats: int = 5) -> Times:
    """Two hosts, 100 ms there and back, 200 Mbit/s, lost packets; the core asks for BBR."""
    times: Times = {"bound": payload_bytes * 8 / (200 * MBIT) + 0.1}
    for loss, count in ((loss, count) for loss in (0.0, 0.001, 0.01) for count in (1, 4, "auto")):
        links = {"delay_ms": 50, "rate_bits": 200 * MBIT, "loss": loss}
        with net(2) as here, here.long_links(program, **links):
            label = f"{loss:.1%} lost, {count} stream{'' if count == 1 else 's'}"
            calls: Calls = [(label, "direct", payload_bytes, repeats)]
            common = {"interface": "wan0", "streams": count}
            times |= timed(here, calls, address="10.78.0.1", settings=[{}] * 2, **common)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=("uneven", "long", "streams"))
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    figures: dict[str, Times] = {}
    with tempfile.TemporaryDirectory() as folder:
        program = compile_wan(Path(folder))
        runs = {
            "uneven": uneven,
            "long": lambda: long(program),
            "streams": lambda: streams(program),
        }
        for name, measure in runs.items():
            if arguments.only in (None, name):
                figures[name] = measure()
                print(name)
                for label, seconds in figures[name].items():
                    print(f"  {label:32} {seconds * 1000:9.1f} ms", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
