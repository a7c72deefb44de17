"""What a run of the benchmark measures, how peers are launched, and the tables and the picture."""

import importlib.util
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from collect.cli.bench import installed, peers
from collect.cli.bench.cases import BOTH, IN_PLACE, OUT_OF_PLACE, Case, Variant
from collect.cli.bench.figures import Figures, sum_up
from collect.cli.bench.limits import Limits
from collect.cli.bench.peers import Peer, find
from collect.cli.bench.plot import draw, require_matplotlib
from collect.cli.bench.suite import Suite, is_comparable
from collect.cli.bench.table import tables
from collect.cli.usage import UsageError
from tests.tidy import ROOT

WORKER = ["python", "worker", "--rank"]
LIMITS = Limits(
    **dict.fromkeys(("copy_large", "copy_cached", "add_large", "add_cached"), 8e9),
    **dict.fromkeys(("flag_s", "call_s"), 1e-7),
    **dict.fromkeys(("tcp_asleep_s", "tcp_spinning_s"), 5e-6),
    **dict.fromkeys(("stream_default", "stream_reno"), 4e9),
)


def suite_of(collectives: tuple[str, ...], **options: object) -> Suite:
    return Suite(
        collectives=collectives,
        sizes_bytes=(8, 12, 1024),
        worlds=(2,),
        transports=("tcp",),
        **options,  # type: ignore[arg-type]
    )


def figures_of(library: str, transport: str, median_s: float, **way: str) -> Figures:
    case = Case("all-reduce", 256, 4, "float32", "sum", IN_PLACE)
    return sum_up((library, transport), 2, case, Variant(**way), [np.full(3, median_s)])


def printed(rows: list[list[Figures]], beside: list[Peer], limits: Limits | None = None) -> str:
    console = Console(width=200, record=True, file=io.StringIO())
    for table in tables(rows, beside, limits):
        console.print(table)
    return console.export_text()


# ---- suites --------------------------------------------------------------------------------------


def test_cases_combine_what_was_asked_for() -> None:
    suite = suite_of(("all-reduce",), dtypes=("int32", "float32"), ops=("sum", "max"))

    cases = list(suite.cases(2))

    assert len(cases) == 3 * 2 * 2
    assert {case.size_bytes for case in cases} == {8, 12, 1024}


def test_sizes_that_round_to_the_same_are_measured_once() -> None:
    cases = list(suite_of(("all-gather",)).cases(4))

    assert [case.size_bytes for case in cases] == [16, 1024]
    assert [case.op for case in cases] == ["", ""]


def test_bitwise_ops_are_for_integers() -> None:
    suite = suite_of(("reduce",), dtypes=("int32", "float32"), ops=("xor",))

    assert {case.dtype for case in suite.cases(2)} == {"int32"}


def test_a_collective_without_a_choice_of_place_or_size_has_one_case() -> None:
    (barrier,) = suite_of(("barrier",), placements=BOTH, dtypes=("int8", "int16")).cases(2)
    broadcasts = list(suite_of(("broadcast",), placements=(OUT_OF_PLACE,)).cases(2))

    assert barrier.size_bytes == 0
    assert {case.placement for case in broadcasts} == {IN_PLACE}


def test_variants_combine_algorithms_modes_and_arrays() -> None:
    suite = suite_of(
        ("all-reduce", "barrier"),
        algorithms=("auto", "ring"),
        modes=("call", "persistent"),
        arrays=("private", "shared"),
    )
    reduction, *_, barrier = suite.cases(2)

    assert len(set(suite.variants(reduction))) == 8
    assert {variant.arrays for variant in suite.variants(barrier)} == {"private"}


def test_like_is_compared_with_like_and_gloo_with_all() -> None:
    assert is_comparable("auto", Peer("mpich", "shm", "mpich"))
    assert is_comparable("tcp", Peer("mpich", "tcp", "mpich"))
    assert not is_comparable("tcp", Peer("mpich", "shm", "mpich"))
    assert is_comparable("shm", Peer("gloo", "tcp"))


def test_the_installed_package_tells_what_it_can() -> None:
    assert "all-reduce" in installed.collectives()
    assert "tcp" in installed.transports()
    assert "direct" in installed.algorithms()
    assert installed.modes("all-reduce")[0] == "call"


# ---- peers ---------------------------------------------------------------------------------------


def test_gloo_is_launched_process_by_process() -> None:
    commands = Peer("gloo", "tcp").commands(2, WORKER)

    assert [command[-4:] for command in commands] == [[*WORKER, "0"], [*WORKER, "1"]]


@pytest.mark.parametrize("flavour", ["mpich", "openmpi", "intelmpi"])
def test_an_mpi_is_launched_by_its_own_launcher(flavour: str) -> None:
    peer = Peer(flavour, "tcp", flavour, "/opt/bin/mpiexec", "/opt/lib/libmpi.so")

    (command,) = peer.commands(3, WORKER)

    assert command[0] == "env"
    assert "MPI4PY_LIBMPI=/opt/lib/libmpi.so" in command
    assert any("tcp" in word for word in command[1 : command.index("/opt/bin/mpiexec")])
    assert command[command.index("-n") + 1] == "3"


def launcher(folder: Path, says: str) -> Path:
    (folder / "bin").mkdir(parents=True)
    program = folder / "bin" / "mpiexec"
    program.write_text(f"#!/bin/sh\necho '{says}'\n")
    program.chmod(0o755)
    return folder


@pytest.mark.parametrize(
    ("says", "name"),
    [
        ("mpiexec (Open MPI) 5.0", "openmpi"),
        ("Intel(R) MPI Library", "intelmpi"),
        ("HYDRA build details:", "mpich"),
    ],
)
def test_an_mpi_is_found_by_what_its_launcher_says(
    says: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: object())
    folder = launcher(tmp_path / "mpi", says)
    (folder / "lib").mkdir()
    library = folder / peers.LIBRARIES[name][0]
    library.touch()

    found = find(name, str(folder), "tcp")
    whichever = find("mpi", str(folder), "shm")

    assert found is not None
    assert whichever is not None
    assert (found.flavour, found.library, whichever.flavour) == (name, str(library), name)
    other = "mpich" if name == "openmpi" else "openmpi"
    with pytest.raises(UsageError, match=f"found no mpiexec of {other}"):
        find(other, str(folder), "tcp")


@pytest.mark.parametrize(("name", "needs"), [("gloo", "torch"), ("mpich", "mpi4py")])
def test_what_a_peer_needs_is_told(name: str, needs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)

    with pytest.raises(UsageError, match=f"{name} needs {needs}"):
        find(name, None, "tcp")


def test_a_launcher_that_hangs_is_nobodys(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(*_arguments: object, **_options: object) -> None:
        raise subprocess.TimeoutExpired("mpiexec", 1.0)

    monkeypatch.setattr(subprocess, "run", hang)

    assert peers._flavour("mpiexec") == ""


# ---- tables and pictures -------------------------------------------------------------------------


def test_a_table_has_the_ratio_to_the_peers_best_way() -> None:
    rows = [
        [
            figures_of("collect", "tcp", 10e-6),
            figures_of("mpich", "tcp", 50e-6),
            figures_of("mpich", "tcp", 25e-6, mode="persistent"),
            figures_of("mpich", "shm", 1e-6),
        ]
    ]

    text = printed(rows, [Peer("mpich", "tcp", "mpich"), Peer("mpich", "shm", "mpich")])

    assert "all-reduce, float32 sum, in place, 2 processes, loopback TCP" in text
    assert "25.0 us" in text
    assert "2.50" in text
    assert "mpich/shm" not in text
    assert "1 KiB" in text


def test_a_way_gets_a_column_only_where_there_are_several() -> None:
    one = [figures_of("collect", "shm", 1e-6, algorithm="ring")]
    two = [*one, figures_of("collect", "shm", 1e-6, algorithm="tree")]

    assert "algorithm" not in printed([one], [])
    assert "algorithm" in printed([two], [])
    assert "persistent" not in printed([two], [])


def test_a_peer_without_figures_leaves_a_dash() -> None:
    text = printed([[figures_of("collect", "tcp", 1e-6)]], [Peer("gloo", "tcp")])

    assert "gloo/tcp" in text
    assert " - " in text


def test_the_least_time_is_a_call_a_hop_and_the_bytes() -> None:
    over_tcp, in_memory = figures_of("collect", "tcp", 1e-3), figures_of("collect", "shm", 1e-3)

    assert LIMITS.least_s(over_tcp) == pytest.approx(1e-7 + 5e-6 + 1024 / 4e9, rel=0.3)
    assert LIMITS.least_s(in_memory) < LIMITS.least_s(over_tcp)
    assert "of limit" in printed([[over_tcp]], [], LIMITS)


def test_without_matplotlib_the_picture_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)

    with pytest.raises(UsageError, match=r"pip install 'collect\[plot\]'"):
        require_matplotlib()


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="no matplotlib")
def test_a_picture_is_drawn(tmp_path: Path) -> None:
    path = tmp_path / "figures.png"
    # In a process of its own: matplotlib keeps its font files open.
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r});"
        "from tests.unit.cli.test_bench_suite import draw_two; draw_two(sys.argv[1])"
    )

    subprocess.run([sys.executable, "-c", code, str(path)], check=True, cwd=ROOT)

    assert path.read_bytes().startswith(b"\x89PNG")


def draw_two(path: str) -> None:
    """What the picture's process runs."""
    draw([figures_of("collect", "tcp", 1e-6), figures_of("gloo", "tcp", 1e-5)], Path(path))
