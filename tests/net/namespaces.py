"""Network namespaces for the tests: hosts on one bridge, made and removed by each test.

    hub namespace:  bridge br0 ── v0 … v(n-1)
    host i:         eth0, 10.77.0.(i+1)/24 and fd77::(i+1)/64

Nothing is attached to the machine's own network, so no packet leaves the namespaces.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.e2e.world import ROOT, Peer, World, child_environment, native_path

ETC = Path("/etc/netns")  # ip netns exec mounts its files over those of /etc


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr or done.stdout}"
    return done.stdout


class Host:
    """One namespace with eth0 on the bridge."""

    def __init__(self, prefix: str, index: int) -> None:
        self.namespace = f"{prefix}-{index}"
        self.hub = f"{prefix}-hub"
        self.name = f"host{index}"
        self.port = f"v{index}"  # eth0's other end, on the bridge
        self.ipv4 = f"10.77.0.{index + 1}"
        self.ipv6 = f"fd77::{index + 1}"

    def run(self, *command: str) -> str:
        return run("ip", "netns", "exec", self.namespace, *command)

    def command(self, *arguments: str) -> list[str]:
        """Runs Python in this namespace."""
        return ["ip", "netns", "exec", self.namespace, sys.executable, *arguments]

    def shape(self, rate_bits: int, queue_ms: int = 50) -> None:
        """Limits eth0 to this rate each way, with a queue of so many milliseconds."""
        burst = str(max(16_000, rate_bits // 8 // 500))
        limit = ["rate", str(rate_bits), "burst", burst, "latency", f"{queue_ms}ms"]
        for space, device in ((self.namespace, "eth0"), (self.hub, self.port)):
            run("tc", "-n", space, "qdisc", "replace", "dev", device, "root", "tbf", *limit)

    # ---- faults --------------------------------------------------------------------------

    def cut(self) -> None:
        """Takes the link away at the bridge: nothing is reset, packets just do not arrive."""
        run("ip", "-n", self.hub, "link", "set", self.port, "down")

    def heal(self) -> None:
        run("ip", "-n", self.hub, "link", "set", self.port, "up")

    def drop_from(self, *others: "Host") -> None:
        """Silently loses everything that comes from the other hosts; not the other way."""
        self._filter("drop", others)

    def reset_from(self, other: "Host") -> None:
        """Resets every connection with the other host."""
        self._filter("tcp flags != rst reject with tcp reset", (other,))

    def _filter(self, verdict: str, others: tuple["Host", ...]) -> None:
        self.run("nft", "add table inet cut")
        self.run("nft", "add chain inet cut input { type filter hook input priority 0 ; }")
        for other in others:
            self.run("nft", f"add rule inet cut input ip saddr {other.ipv4} {verdict}")
            self.run("nft", f"add rule inet cut input ip6 saddr {other.ipv6} {verdict}")

    def filter_nothing(self) -> None:
        self.run("nft", "delete table inet cut")


class Net:
    """Hosts, the processes on them, and one coordinator."""

    def __init__(self, hosts: list[Host]) -> None:
        self.hosts = hosts
        self.coordinator: subprocess.Popen[str] | None = None
        self.world = World("", [])

    def start_coordinator(self, host: Host, bind: str, timeout_s: float) -> int:
        """Returns the port."""
        command = host.command("-m", "collect", "coordinator", "--bind", bind)
        self.coordinator = subprocess.Popen(
            [*command, "--timeout", str(timeout_s), "--log-level", "info", "--until-eof"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None,
            text=True,
            cwd=ROOT,
            env=child_environment(),
        )
        assert self.coordinator.stdout is not None
        line = self.coordinator.stdout.readline()
        assert line, "the coordinator did not start"
        return int(line.rsplit(":", 1)[1])

    @contextmanager
    def long_links(
        self,
        program: Path,
        *,
        delay_ms: float,
        rate_bits: int = 0,
        queue_ms: float = 100.0,
        loss: float = 0.0,
        seed: int = 1,
    ) -> Iterator[None]:
        """Meanwhile hosts have wan0, 10.78.0.(i+1)/24, by which every other is `delay_ms` away, one
        way. `program` is tests/net/wan.c, compiled (`compile_wan`)."""
        numbers = [delay_ms * 1000, rate_bits, queue_ms * 1000, loss * 1e6, seed]
        spaces = [f"/run/netns/{host.namespace}" for host in self.hosts]
        process = subprocess.Popen(
            [str(program), "wan0", *(str(int(number)) for number in numbers), *spaces],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            for index, host in enumerate(self.hosts):
                address = f"10.78.0.{index + 1}/24"
                run("ip", "-n", host.namespace, "address", "add", address, "dev", "wan0")
                device = ["dev", "wan0", "mtu", "1500", "txqueuelen", "10000", "up"]
                run("ip", "-n", host.namespace, "link", "set", *device)
            yield
        finally:
            process.kill()
            process.communicate()

    def peer(self, host: Host, body: Any, name: str, address: str, **settings: Any) -> Peer:
        """Starts a process on a host that runs `body`, a function of a test module."""
        target = f"{body.__module__}:{body.__name__}"
        command = host.command("-X", "faulthandler", "-m", "tests.e2e.world")
        process = subprocess.Popen(
            [*command, native_path(), target, address, name, json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=child_environment(),
        )
        peer = Peer(process, name)
        self.world.peers.append(peer)
        return peer

    def close(self) -> None:
        for peer in self.world.peers:
            peer.close()
        if self.coordinator is not None:
            self.coordinator.kill()
            self.coordinator.wait()
            for stream in (self.coordinator.stdin, self.coordinator.stdout):
                assert stream is not None
                stream.close()


def build(prefix: str, hosts: list[Host]) -> None:
    hub = f"{prefix}-hub"
    run("ip", "netns", "add", hub)
    run("ip", "-n", hub, "link", "add", "br0", "type", "bridge")
    run("ip", "-n", hub, "link", "set", "br0", "up")
    names = "127.0.0.1 localhost\n::1 localhost\n"
    names += "".join(f"{host.ipv4} {host.name}\n{host.ipv6} {host.name}\n" for host in hosts)
    for host in hosts:
        space = host.namespace
        (ETC / space).mkdir(parents=True)
        (ETC / space / "hosts").write_text(names)
        run("ip", "netns", "add", space)
        ends = ["eth0", "netns", space, "type", "veth", "peer", "name", host.port, "netns", hub]
        run("ip", "link", "add", *ends)
        run("ip", "-n", hub, "link", "set", host.port, "master", "br0", "up")
        run("ip", "-n", space, "link", "set", "lo", "up")
        run("ip", "-n", space, "address", "add", f"{host.ipv4}/24", "dev", "eth0")
        run("ip", "-n", space, "address", "add", f"{host.ipv6}/64", "dev", "eth0", "nodad")
        run("ip", "-n", space, "link", "set", "eth0", "up")


def remove(prefix: str, hosts: list[Host]) -> None:
    """Whatever of it is there."""
    for space in [*(host.namespace for host in hosts), f"{prefix}-hub"]:
        subprocess.run(["ip", "netns", "delete", space], capture_output=True, check=False)
        shutil.rmtree(ETC / space, ignore_errors=True)
    with suppress(OSError):
        ETC.rmdir()


def compile_wan(folder: Path) -> Path:
    """The program that makes long links."""
    program = folder / "wan"
    source = str(Path(__file__).with_name("wan.c"))
    run("cc", "-std=gnu11", "-O2", "-D_GNU_SOURCE", "-o", str(program), source)
    return program


@contextmanager
def net(count: int = 3) -> Iterator[Net]:
    """Hosts that reach one another by IPv4, IPv6 and name ("host0", …)."""
    prefix = f"col{os.getpid()}"
    hosts = [Host(prefix, index) for index in range(count)]
    made = Net(hosts)
    remove(prefix, hosts)
    try:
        build(prefix, hosts)
        yield made
    finally:
        try:
            made.close()
        finally:
            remove(prefix, hosts)
