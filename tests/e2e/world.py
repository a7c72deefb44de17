"""Real processes on loopback for the tests: a coordinator and peers that run a test's function.

A peer's function gets a `Stage`: what it tells arrives at the test as a dict, and what the test
says arrives at the peer. So tests wait for what happened, never for a time.
"""

import importlib.machinery
import importlib.util
import json
import logging
import os
import queue
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import collect
from collect.net.loop_thread import new_event_loop

ROOT = Path(__file__).resolve().parents[2]
# libuv keeps a pipe for signals from its first loop on; it is no leak of the first test that runs.
new_event_loop().close()

PATIENCE_S = 60.0
RESULT_FIELDS = ("op", "epoch", "participants", "attempts", "duration_s", "algorithm", "transport")
TIMEOUT_S = 1.0  # the groups' liveness knob

Told = dict[str, Any]


class Stage:
    """A peer's side. `address` is the coordinator's."""

    def __init__(self, address: str, name: str, settings: dict[str, Any]) -> None:
        self.address = address
        self.name = name
        self.settings = settings

    def join(self, **arguments: Any) -> collect.Group:
        arguments = {"min_peers": self.settings.get("min_peers", 1), **arguments}
        return collect.join(self.address, name=self.name, timeout=TIMEOUT_S, **arguments)

    @staticmethod
    def tell(what: str, **fields: Any) -> None:
        sys.stdout.write(json.dumps({"what": what, **fields}) + "\n")
        sys.stdout.flush()

    @staticmethod
    def stop_was_said() -> bool:
        """Whether the test has said a line that was not heard yet. Never blocks."""
        return bool(select.select([sys.stdin], [], [], 0)[0])

    @staticmethod
    def hear() -> str:
        """The next line that the test says; "" when the test is over."""
        return sys.stdin.readline().strip()


class Peer:
    """The test's side of one process."""

    def __init__(self, process: subprocess.Popen[str], name: str) -> None:
        self.process = process
        self.name = name
        self.said: list[str] = []  # everything on standard error
        self._told: queue.Queue[Told | None] = queue.Queue()
        self._readers = [
            threading.Thread(target=self._read_told),
            threading.Thread(target=self._read_said),
        ]
        for reader in self._readers:
            reader.start()

    def _read_told(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            try:
                self._told.put(json.loads(line))
            except ValueError:
                self.said.append(line)
        self._told.put(None)

    def _read_said(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line)  # one by one: tests look while it runs

    def told(self, what: str, timeout_s: float = PATIENCE_S) -> Told:
        """The next thing it tells, which must be `what`."""
        told = self.told_any(timeout_s)
        assert told["what"] == what, f"{self.name} told {told}:\n{self.log}"
        return told

    def told_any(self, timeout_s: float = PATIENCE_S) -> Told:
        """The next thing it tells."""
        try:
            told = self._told.get(timeout=timeout_s)
        except queue.Empty:
            self.process.send_signal(signal.SIGABRT)  # faulthandler shows where it hangs
            self.process.wait(10)
            self._join_readers()
            raise AssertionError(f"{self.name} told nothing:\n{self.log}") from None
        if told is None:
            self._join_readers()
        assert told is not None, f"{self.name} ended ({self.process.poll()}):\n{self.log}"
        return told

    def say(self, line: str = "go") -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def kill(self, number: int = signal.SIGKILL) -> None:
        self.process.send_signal(number)

    def wait(self, timeout_s: float = PATIENCE_S) -> int:
        """The exit status, once it has ended by itself."""
        return self.process.wait(timeout_s)

    def until_blocked(self) -> None:
        """Returns when its main thread has stood still for a while."""
        seen: list[int] = []

        def is_still() -> bool:
            fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
            time.sleep(0.05)
            seen.append(int(fields[11]))  # clock ticks in user mode
            return len(seen) > 5 and seen[-1] - seen[-5] <= 1

        until(is_still, f"{self.name} waits")

    @property
    def log(self) -> str:
        return "".join(self.said[-80:])

    def _join_readers(self) -> None:
        for reader in self._readers:
            reader.join()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._join_readers()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert stream is not None
            with suppress(BrokenPipeError):
                stream.close()


class World:
    """A coordinator at `address`, what it logs, and the peers that the test starts."""

    def __init__(self, address: str, lines: list[str]) -> None:
        self.address = address
        self.lines = lines
        self.peers: list[Peer] = []

    def peer(self, body: Callable[[Stage], None], name: str, **settings: Any) -> Peer:
        """Starts a process that runs `body`, a function of a test module."""
        target = f"{body.__module__}:{body.__name__}"
        command = [sys.executable, "-X", "faulthandler", "-m", "tests.e2e.world"]
        process = subprocess.Popen(
            [*command, native_path(), target, self.address, name, json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=child_environment(),
        )
        peer = Peer(process, name)
        self.peers.append(peer)
        return peer

    def team(self, body: Callable[[Stage], None], size: int, **settings: Any) -> list[Peer]:
        """`size` peers "a", "b", … that found the group together."""
        settings = {"min_peers": size, **settings}
        return [self.peer(body, chr(ord("a") + index), **settings) for index in range(size)]

    def wait_for_log(self, text: str, *, after: str = "") -> str:
        """The first line with `text`, behind the first line with `after`."""
        found: list[str] = []

        def is_there() -> bool:
            lines = list(self.lines)
            begin = next((i for i, line in enumerate(lines) if after in line), len(lines))
            found[:] = [line for line in lines[begin:] if text in line]
            return bool(found)

        until(is_there, f"the coordinator logs {text!r}")
        return found[0]


class LogLines(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def child_environment() -> dict[str, str]:
    """Children must not look up an editable build: each would build it again, all at once."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("COLLECT_")}
    builds = [str(path) for path in (ROOT / "build").glob("cp*")]
    skip = os.pathsep.join(filter(None, [own.get("MESONPY_EDITABLE_SKIP", ""), *builds]))
    return {**own, "MESONPY_EDITABLE_SKIP": skip}


def native_path() -> str:
    """The compiled module that children load."""
    spec = importlib.util.find_spec("collect.native._lib")
    assert spec is not None, "the C core is not built; run make dev"
    assert spec.origin is not None
    return spec.origin


def load_native(path: str) -> None:
    """Loads the compiled module from where the parent found it."""
    name = "collect.native._lib"
    loader = importlib.machinery.ExtensionFileLoader(name, path)
    spec = importlib.machinery.ModuleSpec(name, loader, origin=path)
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    sys.modules[name] = module


@contextmanager
def world(address: str = "127.0.0.1:0", **arguments: Any) -> Iterator[World]:
    """A world with a coordinator in a thread of the test's process."""
    logger = logging.getLogger("collect")
    level, handler = logger.level, LogLines()
    logger.setLevel(logging.DEBUG)
    logger.addHandler(handler)
    service = collect.CoordinatorService(address, timeout=TIMEOUT_S, **arguments)
    try:
        with alone(service.start(), handler.lines) as made:
            yield made
    finally:
        service.stop()
        logger.removeHandler(handler)
        logger.setLevel(level)


@contextmanager
def alone(address: str, lines: list[str] | None = None) -> Iterator[World]:
    """A world whose coordinator is the test's business."""
    made = World(address, [] if lines is None else lines)
    try:
        yield made
    finally:
        for peer in made.peers:
            peer.close()


def error_fields(error: collect.CollectError) -> Told:
    """An exception as a peer tells it."""
    return {
        "type": type(error).__name__,
        "text": str(error),
        "peer": error.peer,
        "epoch": error.epoch,
        "op": error.op,
    }


def result_fields(result: collect.Result) -> Told:
    """A result as a peer tells it, with the bytes in hexadecimal."""
    fields = {name: getattr(result, name) for name in RESULT_FIELDS}
    array = result.array
    return {**fields, "bytes": array.tobytes().hex() if array is not None else ""}


def until(is_true: Callable[[], bool], what: str, timeout_s: float = PATIENCE_S) -> None:
    """Looks again and again."""
    deadline_s = time.monotonic() + timeout_s
    while not is_true():
        assert time.monotonic() < deadline_s, f"not in {timeout_s:g} s: {what}"
        time.sleep(0.01)


def main() -> None:
    native, target, address, name, settings = sys.argv[1:]
    load_native(native)
    logging.basicConfig(level=logging.DEBUG, format=f"%(relativeCreated)7d {name} %(message)s")
    module, _, function = target.partition(":")
    body = getattr(importlib.import_module(module), function)
    body(Stage(address, name, json.loads(settings)))


if __name__ == "__main__":
    main()
