"""The public surface, said once: header, objects, compiled module and documentation agree."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.tidy import ROOT

HEADER = ROOT / "csrc/include/collect.h"
FUNCTIONS_MAX = 60
DECLARATION = re.compile(r"^COLLECT_API\s+[^;(]*?\b(\w+)\s*\(", re.M)


def declared(header: str) -> list[str]:
    return DECLARATION.findall(header)


def undocumented(header: str) -> list[str]:
    """Functions without a comment right before them, or before the block that they are in."""
    missing, has_comment = [], False
    for line in header.splitlines():
        name = DECLARATION.match(line)
        if name and not has_comment:
            missing.append(name.group(1))
        if line.endswith("*/") and not line.startswith("/* ----"):
            has_comment = True
        elif not line.strip():
            has_comment = False
    return missing


def visible_symbols(readelf: str) -> set[str]:
    """What `readelf -sW` shows to be defined, global and visible by default."""
    row = re.compile(r"^\s*\d+: \S+\s+\S+ +\w+ +(?:GLOBAL|WEAK) +DEFAULT +(\S+) +([^\s@]+)", re.M)
    return {name for section, name in row.findall(readelf) if section != "UND"}


def exported_symbols(nm: str) -> set[str]:
    return {line.split()[-1] for line in nm.splitlines() if line.strip()}


def output(tool: str, *arguments: str | Path) -> str:
    if shutil.which(tool) is None:
        pytest.skip(f"{tool}, of binutils, is not installed")
    run = subprocess.run([tool, *arguments], capture_output=True, text=True, check=True)
    return run.stdout


@pytest.fixture(scope="module")
def module_path() -> Path:
    native = pytest.importorskip("collect.native._lib", reason="the native module is not built")
    return Path(native.__file__)


@pytest.fixture(scope="module")
def core_path(module_path: Path) -> Path:
    """The static core that the module was linked from, or that of the C tests."""
    candidates = [module_path.parents[1] / "csrc", ROOT / "build-c/csrc"]
    for candidate in candidates:
        if (candidate / "libcollect_core.a").exists():
            return candidate / "libcollect_core.a"
    pytest.skip("no build tree holds the static core")


# ---- the surface ---------------------------------------------------------------------------------


def test_the_public_surface_is_small() -> None:
    names = declared(HEADER.read_text())

    assert 0 < len(names) <= FUNCTIONS_MAX
    assert len(names) == len(set(names))
    assert all(name.startswith("collect_") for name in names)


def test_every_public_function_is_documented_where_it_is_declared() -> None:
    assert undocumented(HEADER.read_text()) == []


def test_the_core_shows_what_the_header_declares(core_path: Path) -> None:
    assert visible_symbols(output("readelf", "-sW", core_path)) == set(declared(HEADER.read_text()))


def test_the_bindings_have_what_the_header_declares() -> None:
    native = pytest.importorskip("collect.native._lib", reason="the native module is not built")

    bound = {name for name in dir(native.lib) if name.startswith("collect_")}

    assert bound == set(declared(HEADER.read_text()))


def test_the_compiled_module_exports_its_entry_only(module_path: Path) -> None:
    assert exported_symbols(output("nm", "-D", "--defined-only", module_path)) == {"PyInit__lib"}


# ---- the readers themselves ----------------------------------------------------------------------


def test_declarations_are_found_over_several_lines() -> None:
    header = """
#define COLLECT_API x
COLLECT_API const char *collect_a(void);
COLLECT_API int collect_b(int a,
                          int b);
int collect_private(void);
"""
    assert declared(header) == ["collect_a", "collect_b"]


def test_a_function_without_a_comment_is_reported() -> None:
    header = """
/* ---- a heading is no comment ---- */
COLLECT_API int collect_a(void);

/* For two:
 * words. */
COLLECT_API int collect_b(void);
COLLECT_API int collect_c(int a,
                          int b);

COLLECT_API int collect_d(void);
"""
    assert undocumented(header) == ["collect_a", "collect_d"]


def test_hidden_and_undefined_symbols_are_not_visible() -> None:
    table = """
     5: 0000000000000000    12 FUNC    GLOBAL DEFAULT    1 collect_version
     6: 0000000000000000    12 FUNC    GLOBAL HIDDEN     1 col_status_name
     7: 0000000000000000     0 NOTYPE  GLOBAL DEFAULT  UND malloc
     8: 0000000000000000     8 FUNC    LOCAL  DEFAULT    1 helper
     9: 0000000000000000     8 OBJECT  GLOBAL DEFAULT    4 stray_table
"""
    assert visible_symbols(table) == {"collect_version", "stray_table"}


def test_every_exported_symbol_is_seen() -> None:
    table = "0000000000001000 T PyInit__lib\n0000000000002000 T collect_version\n"

    assert exported_symbols(table) == {"PyInit__lib", "collect_version"}
