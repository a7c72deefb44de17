"""The world of a stress test: who is in, what befalls them, and what must hold after each round."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from collect.cli.stress.launcher import Child, Launcher, Told, Usage, usage
from collect.cli.stress.network import Network
from collect.cli.stress.oracle import Oracle
from collect.cli.stress.recovery import Recoveries

LIVENESS_S = 10.0  # nobody may go without progress for so long
ROUND_S = 30.0
DESCRIPTORS_MORE_MAX = 3  # than a link per member accounts for
THREADS_MORE_MAX = 1
RESIDENT_MORE_BYTES_MAX = 96 << 20
SETTLED_ROUNDS = 3  # after so many, what a peer holds is measured for the first time


class Failure(Exception):
    """Something that must not happen."""


@dataclass(frozen=True)
class Setting:
    """What a world is like. `relays`: connections pass doors, because some are to be disturbed."""

    seed: int
    size_min: int
    size_max: int
    timeout_s: float
    transport: str
    relays: bool


@dataclass
class Peer:
    """A membership. `is_doomed`: it will not be a member much longer, and that is meant so."""

    name: str
    child: Child
    is_member: bool = False
    is_doomed: bool = False
    is_stopped: bool = False
    moved_s: float = field(default_factory=time.monotonic)
    participants: tuple[str, ...] = ()
    rounds: int = 0
    base: Usage | None = None


class World:
    """Processes, the oracle, and the rules that hold at all times."""

    def __init__(self, folder: Path, setting: Setting) -> None:
        self.setting = setting
        self.rng = random.Random(setting.seed)
        self.oracle = Oracle(setting.seed)
        self.launcher = Launcher(folder, setting.timeout_s, self._on_told, self._on_over)
        self.network = Network()
        self.recoveries = Recoveries()
        self.peers: dict[str, Peer] = {}
        self.fenced: set[str] = set()
        self.on_pump: Callable[[], None] = lambda: None  # called often, for the display
        self._count = 0
        self._by_child: dict[int, Peer] = {}

    # ---- who is in -----------------------------------------------------------------------

    @property
    def members(self) -> list[Peer]:
        """Those that have completed an operation and are to stay."""
        return [peer for peer in self.peers.values() if peer.is_member and not peer.is_doomed]

    @property
    def staying(self) -> set[str]:
        return {peer.name for peer in self.peers.values() if not peer.is_doomed}

    def join(self, child: Child | None = None, min_peers: int = 1) -> Peer:
        """Lets a spare, or a process that was fenced, join."""
        child = child or self.launcher.take_spare()
        self._count += 1
        peer = Peer(f"p{self._count}", child)
        child.label = peer.name
        host, port = self.network.open(peer.name) if self.setting.relays else (None, 0)
        self.peers[peer.name] = self._by_child[child.pid] = peer
        child.say(
            "join",
            name=peer.name,
            address=self.launcher.address,
            min_peers=min_peers,
            timeout=self.setting.timeout_s,
            transport=self.setting.transport,
            advertise=host,
            port=port,
            seed=self.setting.seed,
        )
        return peer

    def doom(self, peer: Peer) -> None:
        """It is about to be expelled: its last record may differ."""
        peer.is_doomed = True
        self.oracle.expelled(peer.name)

    def begin(self, kind: str, victim: Peer | None) -> None:
        """A fault begins, whose recovery is measured on everybody else."""
        others = {peer.name for peer in self.members if peer is not victim}
        self.recoveries.begin(kind, others)

    def kill(self, peer: Peer, kind: str = "kill") -> None:
        """`kind`: under which the recovery is counted; "": under none."""
        self.doom(peer)
        if kind:
            self.begin(kind, peer)
        peer.child.send(signal.SIGKILL)

    def stop(self, peer: Peer) -> None:
        peer.is_stopped = True
        peer.child.send(signal.SIGSTOP)

    def resume(self, peer: Peer) -> None:
        peer.is_stopped = False
        peer.moved_s = time.monotonic()
        peer.child.send(signal.SIGCONT)

    # ---- what happens --------------------------------------------------------------------

    def _on_told(self, child: Child, told: Told) -> None:
        peer = self._by_child[child.pid]
        peer.moved_s = time.monotonic()
        self.oracle.take(told)
        if told["what"] == "op":
            peer.is_member = True
            if not told["failed"]:
                peer.participants = tuple(told["participants"])
            self.recoveries.completed(peer.name, told["completed_ns"], told["duration_s"])
        elif told["what"] == "fenced":
            if not peer.is_doomed:
                raise Failure(f"{peer.name} was fenced, but nothing was done to it: {told}")
            self.fenced.add(peer.name)
            self._forget(peer)
        elif told["what"] == "left":
            self._forget(peer)

    def _on_over(self, child: Child, status: int) -> None:
        peer = self._by_child.pop(child.pid)
        if self.peers.get(peer.name) is not peer and status == 0:
            return
        if not peer.is_doomed or status != -signal.SIGKILL:
            raise Failure(f"{peer.name} ended with status {status}:\n{child.tail()}")
        self._forget(peer)

    def _forget(self, peer: Peer) -> None:
        del self.peers[peer.name]
        self.oracle.is_over(peer.name)
        self.network.close(peer.name)
        self.recoveries.is_over(peer.name)

    def until(self, is_true: Callable[[], bool], what: str, timeout_s: float = ROUND_S) -> None:
        """Follows the world until something holds; checks all the while that it moves."""
        deadline_s = time.monotonic() + timeout_s
        while not is_true():
            self.launcher.pump(0.02)
            self.oracle.settle()
            self.on_pump()
            now_s = time.monotonic()
            for peer in self.peers.values():
                if not peer.is_stopped and now_s - peer.moved_s > LIVENESS_S:
                    raise Failure(f"{peer.name} has not moved for {LIVENESS_S:g} s ({what})")
            if now_s > deadline_s:
                raise Failure(f"not within {timeout_s:g} s: {what}; {self.describe()}")

    def run_for(self, seconds: float) -> None:
        until_s = time.monotonic() + seconds
        self.until(lambda: time.monotonic() >= until_s, "time passes")

    def until_settled(self) -> None:
        """All who are to stay work together, nobody else is there, and everybody moves."""
        since_s = time.monotonic()

        def is_settled() -> bool:
            wanted = self.staying
            return all(
                not peer.is_doomed and set(peer.participants) == wanted and peer.moved_s > since_s
                for peer in self.peers.values()
            )

        self.until(is_settled, "everybody who is to stay works with all the others")

    def describe(self) -> str:
        texts = []
        for peer in self.peers.values():
            marks = [
                name for name in ("is_member", "is_doomed", "is_stopped") if getattr(peer, name)
            ]
            texts.append(f"{peer.name} ({', '.join(marks)}) with {', '.join(peer.participants)}")
        return "; ".join(texts)

    # ---- leaks ---------------------------------------------------------------------------

    def check_usage(self) -> None:
        """At the end of a round: no peer holds more than when it had settled."""
        links = len(self.peers) - 1
        for peer in self.peers.values():
            peer.rounds += 1
            found = usage(peer.child.pid)
            found.descriptors -= links
            if peer.rounds == SETTLED_ROUNDS:
                peer.base = found
            if peer.base is None:
                continue
            base = peer.base
            is_fine = (
                found.descriptors <= base.descriptors + DESCRIPTORS_MORE_MAX
                and found.threads <= base.threads + THREADS_MORE_MAX
                and found.resident_bytes <= base.resident_bytes + RESIDENT_MORE_BYTES_MAX
            )
            if not is_fine:
                raise Failure(
                    f"{peer.name} leaks: {found} after {peer.rounds} rounds, at first {base}; "
                    f"descriptors of {links} links are not counted"
                )

    # ---- the end -------------------------------------------------------------------------

    def leave_all(self) -> None:
        """Everybody leaves, one by one; the others go on until they leave, too."""
        while self.peers:
            peer = self.rng.choice(list(self.peers.values()))
            peer.child.say("leave")
            self.until(partial(self._is_gone, peer.name), f"{peer.name} leaves")
            self.oracle.settle()

    def _is_gone(self, name: str) -> bool:
        return name not in self.peers

    def close(self) -> None:
        self.launcher.close()
        self.network.stop()
