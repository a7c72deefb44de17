"""The bindings agree with the header; numbers that are written twice are equal."""

import ast
import re

import pytest

from collect import native
from collect.config import CHUNK_BYTES_MAX, PEERS_MAX, STREAMS_MAX
from collect.errors import Closed
from collect.native import codes, status
from collect.native.engine import EventKind
from collect.native.operation import Gate
from collect.net.addresses import ADDRESS_BYTES_MAX
from tests.tidy import ROOT

HEADERS = [ROOT / "csrc/include" / name for name in ("collect_types.h", "collect.h")]
HEADER = "".join(path.read_text() for path in HEADERS)


def enumerators(name: str) -> dict[str, int]:
    body = re.search(rf"enum {name} \{{(.*?)\}};", HEADER, re.S)
    assert body is not None
    return {key: int(value) for key, value in re.findall(r"COLLECT_(\w+) = (-?\d+)", body.group(1))}


def test_the_stub_declares_what_the_header_does() -> None:
    stub = ast.parse((ROOT / "collect/native/_lib.pyi").read_text())
    functions = {
        node.name: len(node.args.args) - 1
        for node in ast.walk(stub)
        if isinstance(node, ast.FunctionDef)
    }
    declared = re.findall(r"^COLLECT_API\s+[^;(]*?\b(\w+)\s*\(([^;]*)\);", HEADER, re.M)

    assert functions == {
        name: 0 if arguments == "void" else arguments.count(",") + 1 for name, arguments in declared
    }


def test_statuses_are_those_of_the_header() -> None:
    known = enumerators("collect_status")

    written = {name: value for name, value in vars(status).items() if name.isupper()}

    assert written
    assert {name: known[name] for name in written} == written


def test_events_dtypes_and_reductions_are_those_of_the_header() -> None:
    events = enumerators("collect_event_kind")
    dtypes = enumerators("collect_dtype")
    reductions = enumerators("collect_reduce_op")

    assert {f"EVENT_{kind.name}": kind.value for kind in EventKind} == events
    assert {name.upper(): code for code, name in codes.DTYPE_NAMES.items()} == {
        name: code for name, code in dtypes.items() if name != "DTYPE_COUNT"
    }
    assert {op.upper(): code for op, code in codes.REDUCE_CODES.items()} == {
        name: code for name, code in reductions.items() if name != "REDUCE_OP_COUNT"
    }


def test_collectives_and_algorithms_are_those_of_the_header() -> None:
    collectives = enumerators("collect_collective")
    algorithms = enumerators("collect_algorithm")

    assert {kind.name: kind.value for kind in codes.Collective} == {
        name: code for name, code in collectives.items() if name != "COLLECTIVE_COUNT"
    }
    assert {name.upper(): code for name, code in codes.ALGORITHM_CODES.items()} == {
        name: code for name, code in algorithms.items() if name != "ALGORITHM_COUNT"
    }


@pytest.mark.parametrize(
    ("limit", "value"),
    [
        ("RANKS_MAX", PEERS_MAX),
        ("STREAMS_MAX", STREAMS_MAX),
        ("ADDRESS_BYTES_MAX", ADDRESS_BYTES_MAX),
    ],
)
def test_limits_are_those_of_the_header(limit: str, value: int) -> None:
    found = re.search(rf"#define COLLECT_{limit} (\d+)", HEADER)
    assert found is not None
    assert int(found.group(1)) == value


def test_a_chunk_is_at_most_a_mebibyte() -> None:
    assert "64…1 MiB" in HEADER
    assert CHUNK_BYTES_MAX == 1 << 20


def test_a_missing_core_is_told_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "collect.native._lib", None)
    for name in ("ffi", "lib"):
        monkeypatch.delitem(vars(native), name, raising=False)
    monkeypatch.delitem(vars(native), "_lib", raising=False)

    with pytest.raises(ImportError, match=r"not built or does not load.*make dev"):
        native.require()


def test_a_shut_gate_lets_nobody_in_and_tells_when_all_are_out() -> None:
    gate = Gate()
    with gate.passing():
        assert gate.shut()
        assert not gate.shut()
        assert not gate.is_empty()
        with pytest.raises(Closed):
            gate.enter()

    assert gate.is_empty()


def test_a_thread_that_was_interrupted_on_its_way_out_is_out_with_its_next_step() -> None:
    gate = Gate()
    gate.enter()

    with gate.passing():
        pass

    assert gate.is_empty()
