"""The search for leaks and the limits on time work; a check that cannot fail is worthless."""

import re
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from tests import conftest

pytest_plugins = ["pytester"]
PLUGIN = Path(conftest.__file__).read_text()


def test_a_descriptor_that_stays_open_is_reported() -> None:
    before = conftest.resources()

    with socket.socket():
        (leak,) = conftest.leaks(before, 0, grace_s=0)

    assert "socket:" in leak


def test_a_thread_that_goes_on_is_reported() -> None:
    before, go_on = conftest.resources(), threading.Event()
    thread = threading.Thread(target=go_on.wait, name="left")
    thread.start()

    (leak,) = conftest.leaks(before, 0, grace_s=0)
    go_on.set()
    thread.join()

    assert leak.startswith("thread left")


def test_a_child_that_nobody_waited_for_is_reported() -> None:
    before = conftest.resources()

    with subprocess.Popen(["sleep", "60"]) as child:
        (leak,) = conftest.leaks(before, 0, grace_s=0)
        child.kill()

    assert leak.startswith("child ")


def test_native_memory_that_is_not_freed_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conftest, "native_blocks", lambda: 5)

    assert conftest.leaks(conftest.resources(), 3, grace_s=0) == [
        "2 blocks of the C core's heap",
    ]


def test_what_is_about_to_end_is_given_its_time() -> None:
    before = conftest.resources()
    timer = threading.Timer(0.1, lambda: None)
    timer.start()

    assert conftest.leaks(before, 0) == []


def run_inner(pytester: pytest.Pytester, test: str) -> pytest.RunResult:
    pytester.makeconftest(PLUGIN)
    pytester.makeini("[pytest]\nmarkers = time_limit(s): a\n soak: b\n net: c\n e2e: d\n")
    pytester.makepyfile(test)
    return pytester.runpytest_subprocess("-p", "no:cacheprovider")


def test_a_leak_fails_the_test_that_made_it(pytester: pytest.Pytester) -> None:
    result = run_inner(pytester, "import os\nkept = []\ndef test_a(): kept.append(os.pipe())\n")

    result.stdout.fnmatch_lines(["*left behind:*", "descriptor*pipe*"])
    result.assert_outcomes(passed=1, errors=1)


def test_a_test_that_takes_too_long_fails_and_the_next_one_runs(pytester: pytest.Pytester) -> None:
    result = run_inner(
        pytester,
        """
        import pytest, threading

        @pytest.mark.time_limit(0.2)
        def test_a():
            threading.Event().wait()

        def test_b():
            pass
        """,
    )

    result.stdout.fnmatch_lines(["*took longer than 0.2 s*"])
    result.assert_outcomes(passed=1, failed=1)


def test_a_seed_is_the_same_in_every_run_and_differs_between_tests(
    pytester: pytest.Pytester,
) -> None:
    test = "def test_a(seed): assert False, f'seed {seed}'\ndef test_b(seed): test_a(seed)\n"

    runs = [run_inner(pytester, test).stdout.str() for _ in range(2)]
    first, second = (set(re.findall(r"AssertionError: seed (\d+)", run)) for run in runs)

    assert len(first) == 2
    assert first == second
