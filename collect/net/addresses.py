"""Where peers can be reached: resolving names, and this host's own addresses.

A peer advertises several candidates for its data port, best first. Loopback candidates are meant
for peers of the same host only: hosts are told apart by `host_id`.
"""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import os
import socket
import struct
from pathlib import Path

from collect.config import Address
from collect.errors import CoordinatorUnreachable, InvalidArgument

CANDIDATES_MAX = 8
ADDRESS_BYTES_MAX = 512  # COLLECT_ADDRESS_BYTES_MAX of collect.h, with the terminating zero

_SIOCGIFADDR = 0x8915  # netdevice(7)
_IFREQ_BYTES = 40
_IF_INET6 = Path("/proc/net/if_inet6")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_NAMESPACE = "/proc/self/ns/net"


def host_id() -> str:
    """Equal for two processes exactly when they share loopback: boot id and network namespace."""
    try:
        boot = _BOOT_ID.read_text().strip()
        return f"{boot}/{os.stat(_NAMESPACE).st_ino}"
    except OSError:
        return socket.gethostname()


def is_loopback(host: str) -> bool:
    """True for a numeric loopback address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_wildcard(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def resolve(address: Address) -> list[Address]:
    """The numeric addresses that a name stands for, in the system's order; IPv4 stays as it is."""
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise CoordinatorUnreachable(
            f"{address.host!r} does not resolve to an address: {error}",
            advice="check the spelling, or pass an IP address",
        ) from None
    hosts = [str(sockaddr[0]) for *_, sockaddr in found]
    return [Address(host, address.port) for host in dict.fromkeys(hosts)]


def has_ipv6() -> bool:
    """Whether a dual-stack listener can be opened here."""
    if not socket.has_ipv6:
        return False
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            probe.bind(("::", 0))
    except OSError:
        return False
    return True


def source_address(toward: Address) -> str | None:
    """The local address that the system would use to reach `toward`. Sends nothing."""
    family = socket.AF_INET6 if ":" in toward.host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((toward.host, toward.port or 9))
            return str(probe.getsockname()[0])
    except OSError:
        return None


def interface_addresses() -> dict[str, list[str]]:
    """Addresses by interface, IPv4 first; link-local ones are left out."""
    found: dict[str, list[str]] = {name: [] for _, name in socket.if_nameindex()}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as query:
        for name, addresses in found.items():
            with contextlib.suppress(OSError):
                request = struct.pack(f"{_IFREQ_BYTES}s", name.encode()[:15])
                answer = fcntl.ioctl(query.fileno(), _SIOCGIFADDR, request)
                addresses.append(socket.inet_ntoa(answer[20:24]))
    with contextlib.suppress(OSError):
        for line in _IF_INET6.read_text().splitlines():
            fields = line.split()
            address = ipaddress.IPv6Address(bytes.fromhex(fields[0]))
            if not address.is_link_local:
                found.setdefault(fields[5], []).append(str(address))
    return found


def local_hosts(toward: Address, interface: str | None = None) -> list[str]:
    """This host's addresses for others, the one that leads to `toward` first.

    Args:
        toward: numeric address of the coordinator.
        interface: only this interface, by name or by one of its addresses.
    """
    by_name = interface_addresses()
    if interface is not None:
        if by_name.get(interface):
            return by_name[interface]
        if any(interface in addresses for addresses in by_name.values()):
            return [interface]
        known = ", ".join(f"{name} {addresses}" for name, addresses in by_name.items() if addresses)
        raise InvalidArgument(f"interface {interface!r} has no address here; known: {known}")
    every = [host for addresses in by_name.values() for host in addresses if not is_loopback(host)]
    first = source_address(toward)
    hosts = ([first] if first is not None and not is_loopback(first) else []) + every
    same_family = [host for host in hosts if (":" in host) == (":" in toward.host)]
    return list(dict.fromkeys(same_family + hosts))


def bind_host(toward: Address, is_loopback_only: bool, interface: str | None) -> str:
    """What the data listener binds: loopback when the whole group is here, else all addresses."""
    if is_loopback_only or interface == "lo":
        return "::1" if ":" in toward.host else "127.0.0.1"
    return "::" if has_ipv6() else "0.0.0.0"


def candidates(
    bound_host: str, port: int, hosts: list[str], *, is_stated: bool = False
) -> tuple[str, ...]:
    """What to advertise for a listener: "1.2.3.4:5", "[::1]:5".

    A listener on loopback is reached by loopback's addresses only: by those among `hosts`, if the
    user has stated these and there are any.
    """
    if not is_wildcard(bound_host):
        stated = [host for host in hosts if is_stated and is_loopback(host)]
        hosts = stated or [bound_host]
    else:
        reachable = [host for host in hosts if ":" not in host or bound_host == "::"]
        hosts = [*reachable[: CANDIDATES_MAX - 1], "127.0.0.1"]
    return tuple(str(Address(host, port)) for host in dict.fromkeys(hosts))


def numeric_hosts(hosts: tuple[str, ...]) -> list[str]:
    """Host names as addresses; addresses as they are."""
    return [found.host for host in hosts for found in resolve(Address(host, 0))]


def for_neighbour(addresses: tuple[str, ...], is_same_host: bool) -> str:
    """A member's candidates as one of its peers should try them, joined by commas.

    Loopback comes first within a host, and is left out between hosts unless there is nothing else.
    """
    local = [text for text in addresses if is_loopback(text.rpartition(":")[0].strip("[]"))]
    remote = [text for text in addresses if text not in local]
    chosen = local + remote if is_same_host else remote or local
    joined = ""
    for text in chosen[:CANDIDATES_MAX]:
        longer = f"{joined},{text}" if joined else text
        if len(longer) < ADDRESS_BYTES_MAX:
            joined = longer
    return joined
