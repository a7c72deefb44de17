"""The libraries to compare with: whether they are here, and how a world of theirs is launched.

Every peer is measured over TCP alone too, so that like is compared with like. What that takes was
verified by counting the bytes that pass the loopback interface: MPICH's UCX and Intel's collectives
otherwise go through shared memory whatever else they were told.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from collect.cli.bench.installed import SHM, TCP
from collect.cli.usage import UsageError

GLOO, ANY_MPI = "gloo", "mpi"
PEERS = (GLOO, "mpich", "mpich-ofi", "openmpi", "intelmpi", ANY_MPI)
VERSION_S = 10.0  # for a launcher to tell its version
# What `mpiexec --version` says, and whose it is.
LAUNCHERS = {"Open MPI": "openmpi", "Intel": "intelmpi", "HYDRA": "mpich"}
# Where mpi4py finds the library in a folder of installation; Debian's have names of their own.
LIBRARIES = {
    "mpich": ("lib/libmpi.so.12", "lib/*/libmpich.so.12"),
    "openmpi": ("lib/libmpi.so.40", "lib/*/libmpi.so.40"),
    "intelmpi": ("lib/libmpi.so.12", "lib/release/libmpi.so.12"),
}
ENVIRONMENT: dict[tuple[str, str], tuple[str, ...]] = {
    ("mpich", SHM): (),
    ("mpich", TCP): ("MPIR_CVAR_NOLOCAL=1", "UCX_TLS=tcp,self", "FI_PROVIDER=tcp"),
    ("openmpi", SHM): (),
    ("openmpi", TCP): ("OMPI_MCA_pml=ob1", "OMPI_MCA_btl=tcp,self"),
    ("intelmpi", SHM): ("I_MPI_FABRICS=shm",),
    ("intelmpi", TCP): ("I_MPI_FABRICS=ofi", "FI_PROVIDER=tcp", "I_MPI_COLL_INTRANODE=pt2pt"),
}
ROOT_MAY = ("OMPI_ALLOW_RUN_AS_ROOT=1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1")


@dataclass(frozen=True, slots=True)
class Peer:
    """A library with one transport."""

    name: str
    transport: str
    flavour: str = ""  # of MPI
    launcher: str = ""  # mpiexec
    library: str = ""  # that mpi4py is to load; "": as it finds one

    @property
    def label(self) -> str:
        return f"{self.name}/{self.transport}"

    @property
    def modes(self) -> tuple[str, ...]:
        return ("call", "persistent") if self.flavour else ("call",)

    def commands(self, world: int, worker: Sequence[str]) -> list[list[str]]:
        """What is to be started; `worker` ends with '--rank', and lacks the number."""
        if not self.flavour:
            return [["env", "GLOO_SOCKET_IFNAME=lo", *worker, str(rank)] for rank in range(world)]
        settings = ENVIRONMENT[self.flavour, self.transport]
        if self.name == "mpich-ofi":
            settings += ("MPIR_CVAR_CH4_NETMOD=ofi",)
        if self.library:
            settings += (f"MPI4PY_LIBMPI={self.library}",)
        options = ["-n", str(world)]
        if self.flavour == "openmpi":
            settings += ROOT_MAY if os.geteuid() == 0 else ()
            # It refuses more processes than cores unless told; then they yield instead of spinning.
            options += ["--map-by", ":OVERSUBSCRIBE"] if world > (os.cpu_count() or 1) else []
        return [["env", *settings, self.launcher, *options, *worker, "0"]]


def find(name: str, folder: str | None, transport: str) -> Peer | None:
    """A peer of this name; None when it has no such transport.

    Raises:
        UsageError: it is not installed here.
    """
    if name == GLOO:
        if folder is not None:
            raise UsageError("collect bench: gloo comes with torch, it takes no =FOLDER")
        if importlib.util.find_spec("torch") is None:
            raise UsageError("collect bench: gloo needs torch; pip install 'collect[torch]'")
        return Peer(name, transport) if transport == TCP else None
    if importlib.util.find_spec("mpi4py") is None:
        raise UsageError(f"collect bench: {name} needs mpi4py; pip install mpi4py")
    wanted = name.removesuffix("-ofi")
    if name == "mpich-ofi" and transport == SHM:
        return None
    for launcher in _launchers(wanted, folder):
        flavour = _flavour(launcher)
        if flavour and wanted in (ANY_MPI, flavour):
            return Peer(name, transport, flavour, launcher, _library(flavour, launcher))
    where = folder or "this Python's folder or on PATH"
    raise UsageError(
        f"collect bench: found no mpiexec of {name} in {where}; "
        f"install one, or say where: {name}=FOLDER (which holds bin/mpiexec)"
    )


def _launchers(wanted: str, folder: str | None) -> list[str]:
    folders = [folder] if folder else [sys.prefix]
    found = [shutil.which("mpiexec", path=str(Path(each) / "bin")) for each in folders]
    if folder is None:
        found += [shutil.which(f"mpiexec.{wanted}"), shutil.which("mpiexec")]
    return [each for each in found if each is not None]


def _flavour(launcher: str) -> str:
    """Whose launcher it is; "" when it does not say."""
    try:
        done = subprocess.run(
            [launcher, "--version"], capture_output=True, text=True, timeout=VERSION_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return next((flavour for word, flavour in LAUNCHERS.items() if word in done.stdout), "")


def _library(flavour: str, launcher: str) -> str:
    """The library beside the launcher."""
    folder = Path(launcher).absolute().parent.parent
    found = (path for pattern in LIBRARIES[flavour] for path in sorted(folder.glob(pattern)))
    return str(next(found, ""))
