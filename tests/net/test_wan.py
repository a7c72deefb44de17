"""Uneven and long links do what they are made for. How fast things are there: benchmarks/wan.py."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.net.namespaces import Host, compile_wan, net
from tests.net.timing import Call, timed

MBIT = 1_000_000
KIB = 1024
REPEATS = 6
COUNTED = REPEATS + 2  # two more come before the clock starts
SLOW = 2  # of the hosts


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_wan(tmp_path_factory.mktemp("wan"))


def sent_bytes(host: Host) -> int:
    told = json.loads(host.run("ip", "-json", "-statistics", "link", "show", "eth0"))
    return int(told[0]["stats64"]["tx"]["bytes"])


@pytest.mark.parametrize(("is_stated", "payloads"), [(True, 1.0), (False, 1.6)])
def test_a_host_that_states_a_slow_link_owns_nothing(is_stated: bool, payloads: float) -> None:
    """Of an even split it sends 2 (p - 1) / p payloads; as no owner the one that is its own."""
    payload_bytes = 2048 * KIB
    rates = ["10Mbit" if index == SLOW and is_stated else "100Mbit" for index in range(5)]
    settings = [{"environment": {"COLLECT_BANDWIDTH": rate}} for rate in rates]
    with net(5) as here:
        calls: list[Call] = [("direct", "direct", payload_bytes, REPEATS)]
        timed(here, calls, address=here.hosts[0].ipv4, settings=settings)

        sent = sent_bytes(here.hosts[SLOW]) / payload_bytes / COUNTED

    assert payloads <= sent < 1.15 * payloads


def test_a_slow_link_that_nobody_states_is_found(capfd: pytest.CaptureFixture[str]) -> None:
    """The coordinator makes a recipe of what was measured, and everybody changes to it."""
    with net(5) as here:
        for index, host in enumerate(here.hosts):
            host.shape(40 * MBIT if index == SLOW else 400 * MBIT)
        calls: list[Call] = [("learn", "direct", 1024 * KIB, 1)]
        calls.append(("direct", "direct", 1024 * KIB, 3 * REPEATS))  # time for the change
        timed(here, calls, address=here.hosts[0].ipv4, settings=[{}] * 5, timeout_s=1.0)

    log = capfd.readouterr().err
    assert "another recipe" in log
    assert "epoch 2: 5 members" in log


def test_few_hops_win_where_links_are_long(program: Path) -> None:
    """Two hops of 50 ms against fourteen."""
    common: dict[str, Any] = {"interface": "wan0"}
    with net(8) as here, here.long_links(program, delay_ms=50):
        calls: list[Call] = [(name, name, 64 * KIB, 3) for name in ("direct", "star", "ring")]
        times = timed(here, calls, address="10.78.0.1", settings=[{}] * 8, **common)

    assert 0.1 <= times["direct"] < times["ring"] / 3
    assert 0.1 <= times["star"] < times["ring"] / 3
    assert times["ring"] >= 0.7


@pytest.mark.parametrize("streams", [1, 4, "auto"])
def test_a_lossy_long_link_loses_no_byte(program: Path, streams: int | str) -> None:
    links = {"delay_ms": 20, "rate_bits": 100 * MBIT, "loss": 0.005}
    with net(2) as here, here.long_links(program, **links):
        calls: list[Call] = [("direct", "direct", 1024 * KIB, 3)]
        common: dict[str, Any] = {"interface": "wan0", "streams": streams}
        times = timed(here, calls, address="10.78.0.1", settings=[{}] * 2, **common)

    assert times["direct"] >= 0.04 + 1024 * KIB * 8 / (100 * MBIT)
