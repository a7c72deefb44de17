"""What every test gets: a seed, a limit on its time, and a search for what it left behind."""

import faulthandler
import gc
import os
import random
import shutil
import signal
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import hypothesis
import pytest

LIMIT_S = 120.0
GRACE_S = 2.0  # for threads and children that were told to end, and are about to
MARK_BY_FOLDER = {"e2e": "e2e", "net": "net"}
stderr_key = pytest.StashKey[IO[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, default=1, help="of every test's random numbers")
    parser.addoption("--fuzz-examples", type=int, default=0, help="examples per hypothesis test")


def pytest_configure(config: pytest.Config) -> None:
    # Captured output is lost when the process is ended for its time, so the stack goes elsewhere.
    config.stash[stderr_key] = os.fdopen(os.dup(sys.__stderr__.fileno()), "w")
    examples = config.getoption("--fuzz-examples")
    hypothesis.settings.register_profile("tests", deadline=None, derandomize=True, database=None)
    hypothesis.settings.register_profile(
        "fuzz",
        deadline=None,
        max_examples=max(examples, 1),
        print_blob=True,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    hypothesis.settings.load_profile("fuzz" if examples else "tests")


def pytest_unconfigure(config: pytest.Config) -> None:
    config.stash[stderr_key].close()


def pytest_report_header(config: pytest.Config) -> str:
    return f"seed: {config.getoption('--seed')} (--seed N for another)"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        folder = item.path.relative_to(here).parts[0] if item.path.is_relative_to(here) else ""
        if folder in MARK_BY_FOLDER:
            item.add_marker(MARK_BY_FOLDER[folder])
        if item.get_closest_marker("net") and (reason := net_is_missing()):
            item.add_marker(pytest.mark.skip(reason=reason))


def net_is_missing() -> str | None:
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "network namespaces need ip, of iproute2"
    return None


# ---- seeds ---------------------------------------------------------------------------------------


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """Differs from test to test; the same in every run with the same --seed."""
    name = f"{request.config.getoption('--seed')} {request.node.nodeid}"
    return zlib.crc32(name.encode())


@pytest.fixture
def rng(seed: int) -> random.Random:
    return random.Random(seed)


@pytest.fixture(autouse=True)
def _global_seed(seed: int) -> None:
    random.seed(seed)


# ---- time ----------------------------------------------------------------------------------------


def time_limit_s(item: pytest.Item) -> float:
    if mark := item.get_closest_marker("time_limit"):
        return float(mark.args[0])
    if item.config.getoption("--fuzz-examples"):
        return 3600.0
    return LIMIT_S


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Fails a test that takes too long; ends the process when even that does not help.

    A signal reaches a test that runs Python or a call that signals interrupt. A hang elsewhere is
    answered GRACE_S and a bit later with every thread's stack and the end of the process.
    """
    limit_s = time_limit_s(item)

    def expire(_signal: int, _frame: object) -> None:
        pytest.fail(f"took longer than {limit_s:g} s")

    previous = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, limit_s)
    stderr = item.config.stash[stderr_key]
    faulthandler.dump_traceback_later(limit_s + GRACE_S + 10, exit=True, file=stderr)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


# ---- leaks ---------------------------------------------------------------------------------------


def descriptors() -> set[str]:
    found = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
        except FileNotFoundError:  # the one that listed the folder
            continue
        if target != "/dev/urandom":  # kept open by the standard library once it was needed
            found.add(f"descriptor {number}: {target}")
    return found


def threads() -> set[str]:
    return {f"thread {thread.name} ({thread.ident})" for thread in threading.enumerate()}


def children() -> set[str]:
    """Processes, zombies too, whose parent is this one."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = stat.read_text().rpartition(")")
        except (FileNotFoundError, ProcessLookupError):
            continue
        state, parent = rest.split()[:2]
        if int(parent) == os.getpid():
            found.add(f"child {name}) in state {state}")
    return found


def native_blocks() -> int:
    """Blocks that the C core holds from the heap; 0 as long as nobody imported it."""
    native = sys.modules.get("collect.native._lib")
    return int(native.lib.collect_heap_blocks()) if native else 0


def resources() -> set[str]:
    return descriptors() | threads() | children()


def leaks(before: set[str], blocks_before: int, grace_s: float = GRACE_S) -> list[str]:
    """What is there now and was not before, once it has had its time to go."""
    deadline_s = time.monotonic() + grace_s
    while True:
        found = sorted(resources() - before)
        blocks = native_blocks() - blocks_before
        if blocks > 0:
            found.append(f"{blocks} blocks of the C core's heap")
        if not found or time.monotonic() >= deadline_s:
            return found
        gc.collect()
        time.sleep(0.01)


@pytest.fixture(autouse=True)
def _nothing_leaks() -> Iterator[None]:
    """The first fixture to be set up, so the last to be torn down."""
    before, blocks_before = resources(), native_blocks()
    yield
    if found := leaks(before, blocks_before):
        pytest.fail("left behind:\n" + "\n".join(found), pytrace=False)
