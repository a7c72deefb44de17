"""The house rules of docs/style.md, executed; and proof that each check can fail."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial

import pytest

from tests import tidy
from tests.tidy import ROOT, Check, Source

tree = cache(tidy.sources)


@cache
def all_paths() -> set[str]:
    """Of text files, and of those without text that are asked for by name."""
    packages = {path.relative_to(ROOT).as_posix() for path in (ROOT / "collect").rglob("py.typed")}
    return {source.path for source in tree()} | packages


def assert_kept(check: Check) -> None:
    complaints = [complaint for source in tree() for complaint in check(source)]
    assert not complaints, "\n".join([(check.__doc__ or "").strip(), *complaints])


own_header = partial(tidy.c_own_header, exists=lambda path: (ROOT / path).is_file())


# ---- the rules -----------------------------------------------------------------------------------


def test_the_tree_is_found() -> None:
    assert {"csrc/include/collect.h", "tests/tidy.py", "Makefile", ".ci/run"} <= all_paths()


def test_python_parses() -> None:
    assert_kept(tidy.syntax)


def test_a_function_fits_on_a_page() -> None:
    assert_kept(tidy.function_lengths)


def test_a_file_has_at_most_600_lines() -> None:
    assert_kept(tidy.file_lengths)


def test_a_line_has_at_most_100_columns() -> None:
    assert_kept(tidy.line_widths)


def test_python_has_no_tabs_and_c_is_indented_with_them() -> None:
    assert_kept(tidy.tabs)


def test_lines_and_files_end_cleanly() -> None:
    assert_kept(tidy.line_ends)


def test_nothing_is_marked_unfinished() -> None:
    assert_kept(tidy.markers)


def test_text_means_something_to_a_stranger() -> None:
    assert_kept(tidy.private_words)


def test_c_depends_downward_only() -> None:
    assert_kept(tidy.c_layers)


def test_c_includes_do_not_climb() -> None:
    assert_kept(tidy.c_include_paths)


def test_a_c_file_includes_its_own_header_first() -> None:
    assert_kept(own_header)


def test_c_headers_are_guarded_by_their_names() -> None:
    assert_kept(tidy.c_guards)


@pytest.mark.parametrize("door", tidy.C_DOORS)
def test_c_has_one_door_to(door: str) -> None:
    assert_kept(partial(tidy.c_door, door=door))


def test_python_depends_downward_only() -> None:
    assert_kept(tidy.python_layers)


def test_decisions_import_nothing_impure() -> None:
    assert_kept(tidy.python_pure)


@pytest.mark.parametrize("door", tidy.PYTHON_DOORS)
def test_python_has_one_door_to(door: str) -> None:
    assert_kept(partial(tidy.python_door, door=door))


def test_the_environment_is_read_in_one_place() -> None:
    assert_kept(tidy.environment)


def test_only_the_command_line_prints_and_exits() -> None:
    assert_kept(tidy.printing)


def test_unit_tests_and_simulations_do_not_sleep() -> None:
    assert_kept(tidy.sleeping)


def test_every_folder_of_the_package_is_a_package() -> None:
    assert not list(tidy.package_files(all_paths()))


def test_every_c_file_is_built() -> None:
    builds = {folder: (ROOT / folder / "meson.build").read_text() for folder in ("csrc", "tests/c")}
    assert not list(tidy.unbuilt_c(all_paths(), builds))


IMPORT_PROBE = """
import json, os, sys, threading
import numpy  # brings threads of its own

def resources():
    descriptors = {os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")
                   if os.path.exists(f"/proc/self/fd/{fd}")}
    return descriptors, set(os.listdir("/proc/self/task"))

before = resources()
try:
    import collect
except ImportError as error:
    print(json.dumps({"failed": str(error)}))
    sys.exit()
after = resources()
print(json.dumps({
    "modules": sorted({"torch", "zmq", "uvloop"} & set(sys.modules)),
    "descriptors": sorted(after[0] - before[0]),
    "threads": sorted(after[1] - before[1]),
}))
"""


def test_import_collect_is_light_and_starts_nothing() -> None:
    command = [sys.executable, "-W", "error", "-c", IMPORT_PROBE]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found = json.loads(run.stdout.splitlines()[-1])
    if "not built" in found.get("failed", ""):
        pytest.skip(f"the native module is not built: {found['failed']}")
    assert found == {"modules": [], "descriptors": [], "threads": []}


# ---- the checks themselves: each must report what breaks its rule, and nothing else ------------


@dataclass(frozen=True)
class Case:
    check: Check
    path: str
    bad: str
    reported: str
    good: str


def named(name: str, *arguments: str) -> Check:
    return partial(getattr(tidy, name), **dict(zip(["door"], arguments, strict=False)))


def c_function(lines: int) -> str:
    return "int\nf(void)\n{\n" + "\tg();\n" * (lines - 4) + "}\n"


def python_function(lines: int) -> str:
    return "def f():\n" + '    """A\n\n    docstring."""\n' + "    g()\n" * (lines - 1)


def guarded(name: str) -> str:
    return f"/* Words. */\n#ifndef {name}\n#define {name}\n#endif\n"


with_header = partial(tidy.c_own_header, exists=lambda path: path == "csrc/plan/plan.h")
NATIVE = "collect.native._lib"
CASES = [
    Case(named("syntax"), "collect/a.py", "class A[T]: ...\n", "a.py:1: ", "class A: ...\n"),
    Case(named("function_lengths"), "csrc/a.c", c_function(71), "f has 71", c_function(70)),
    Case(
        named("function_lengths"),
        "tests/c/t.c",
        "TEST(x)\n{\n" + "\tg();\n" * 70 + "}\n",
        "TEST has 73",
        "static int a[] = {\n" + "\t1,\n" * 80 + "};\n",
    ),
    Case(named("function_lengths"), "collect/a.py", python_function(71), "71", python_function(70)),
    Case(named("file_lengths"), "collect/a.py", "a = 1\n" * 601, "601", "a = 1\n" * 600),
    Case(named("line_widths"), "csrc/a.h", "\t" + "x" * 97, "101 columns", "\t" + "…" * 96),
    Case(named("tabs"), "collect/a.py", "if a:\n\tb\n", "a tab", "if a:\n    b\n"),
    Case(
        named("tabs"),
        "csrc/a.c",
        "int f(void)\n{\n    return 0;\n}\n",
        "a.c:3: indented with spaces",
        "/*\n * A.\n */\nint f(int a,\n      int b)\n{\n\tg(a,\n\t  b); /* {\n\t * } */\n}\n",
    ),
    Case(named("line_ends"), "docs/a.md", "a \n", "a.md:1: white", "a\n\nb\n"),
    Case(named("line_ends"), "docs/a.md", "a", "exactly one newline", "a\n"),
    Case(named("markers"), "docs/a.md", "TO" + "DO: b\n", "unfinished", "# mastodon, XXXX\n"),
    Case(named("private_words"), "docs/a.md", "see /wo" + "rk/x\n", "reader", "and/or\n"),
    Case(named("private_words"), "a.py", 'open("/tm' + 'p/x")', "reader", 'open("$HOME/tm' + 'p")'),
    Case(named("private_words"), "a.py", "# iss" + "ue #3", "reader", "# an iss" + "ue"),
    Case(
        named("c_layers"),
        "csrc/plan/plan.c",
        '#include "kernels/dtype.h"\n',
        "plan may not include",
        '#include "base/size.h"\n#include "include/collect.h"\n#include <stdint.h>\n',
    ),
    Case(
        named("c_layers"),
        "csrc/base/a.h",
        '# include "wire/frame.h"\n',
        "base may not",
        '#include "base/b.h"\n',
    ),
    Case(
        named("c_layers"),
        "csrc/transport/a.c",
        '#include "plan/plan.h"\n',
        "transport may not",
        '#include "wire/frame.h"\n',
    ),
    Case(
        named("c_layers"),
        "csrc/exec/a.c",
        '#include "comm/comm.h"\n',
        "exec may not",
        '#include "kernels/kernels.h"\n#include "transport/link.h"\n',
    ),
    Case(named("c_layers"), "csrc/new/a.c", "", "not in the table", ""),
    Case(
        named("c_include_paths"), "csrc/a.c", '#include "../b.h"\n', "climbs", '#include "a/b.h"\n'
    ),
    Case(
        with_header,
        "csrc/plan/plan.c",
        '#include <a.h>\n#include "plan/plan.h"\n',
        'not "plan/plan.h"',
        '/* Words. */\n#include "plan/plan.h"\n#include <a.h>\n',
    ),
    Case(
        named("c_guards"),
        "csrc/plan/plan.h",
        guarded("COL_PLAN_H"),
        "COL_PLAN_PLAN_H",
        guarded("COL_PLAN_PLAN_H"),
    ),
    Case(named("c_guards"), "csrc/include/collect.h", "", "COLLECT_H", guarded("COLLECT_H")),
    Case(
        named("c_door", "heap"),
        "csrc/plan/a.c",
        "x = malloc(1);\n",
        "a.c:1: malloc",
        's = "free(x)"; /* free(x) */\ncol_free(x);\ny->free(x);\n#define F free (x)\n',
    ),
    Case(
        named("c_door", "clock"), "csrc/a.c", "clock_gettime (0, &t);", "clock", "deadline_time(1);"
    ),
    Case(named("c_door", "readiness"), "csrc/a.c", "epoll_wait(1);", "loop.c", "col_loop_wait(1);"),
    Case(named("c_door", "readiness"), "csrc/a.c", "eventfd(0, 0);", "loop.c", "event_fd(0);"),
    Case(named("c_door", "sockets"), "csrc/a.c", "a = connect(1);", "listener", "s->connect(1);"),
    Case(named("c_door", "mappings"), "csrc/a.c", "munmap(a, 1);", "heap", "heap_unmap(a, 1);"),
    Case(named("c_door", "environment"), "csrc/a.c", 'getenv("A");', "getenv", "int getenv_count;"),
    Case(
        named("c_door", "processor"),
        "csrc/a.c",
        '__builtin_cpu_supports("avx2");',
        "dispatch.c",
        "__builtin_clz(1);",
    ),
    Case(
        named("python_layers"),
        "collect/net/a.py",
        "from collect.session import Session\n",
        "net may not import collect.session",
        "from collect.wire import codec\nfrom . import bus\nimport collect.membership.view\n",
    ),
    Case(
        named("python_layers"),
        "collect/wire/a.py",
        "def f():\n    from ..membership import view\n",
        "wire may not",
        "from .messages import Join\nfrom ..types import Rank\n",
    ),
    Case(
        named("python_layers"),
        "collect/session.py",
        "from . import api\n",
        "session may not import collect.api",
        "from . import native, net\n",
    ),
    Case(named("python_layers"), "collect/utils.py", "", "not in the table", ""),
    Case(
        named("python_pure"),
        "collect/membership/a.py",
        "import time\n",
        "more than its arguments",
        "from dataclasses import dataclass\nfrom collect.wire.messages import Join\n",
    ),
    Case(
        named("python_pure"),
        "collect/wire/a.py",
        "from random import random\n",
        "random",
        "import enum\n",
    ),
    Case(
        named("python_pure"),
        "collect/wire/messages.py",
        "import msgpack\n",
        "not of the standard library",
        "import struct\n",
    ),
    Case(
        named("python_pure"),
        "collect/wire/codec.py",
        "import numpy as np\n",
        "numpy is not",
        "import msgpack\n",
    ),
    Case(named("python_pure"), "collect/types.py", "import numpy\n", "numpy", "import time\n"),
    Case(
        named("python_door", "zmq"),
        "collect/session.py",
        "import zmq.asyncio\n",
        "only collect/net",
        "import zmqlike\n",
    ),
    Case(
        named("python_door", "msgpack"),
        "collect/wire/messages.py",
        "from msgpack import packb\n",
        "codec.py",
        "",
    ),
    Case(
        named("python_door", "torch"),
        "collect/api.py",
        "def f():\n    import torch\n",
        "only collect/torch",
        "from collect.torch import work\n",
    ),
    Case(
        named("python_door", "mpi4py"),
        "collect/cli/bench/worker.py",
        "from mpi4py import MPI\n",
        "only collect/cli/bench/mpi.py",
        "",
    ),
    Case(
        named("python_door", "matplotlib"),
        "collect/cli/bench/table.py",
        "import matplotlib\n",
        "only collect/cli/bench/plot.py",
        "",
    ),
    Case(named("python_door", "argparse"), "collect/api.py", "import argparse", "collect/cli", ""),
    Case(
        named("python_door", NATIVE),
        "collect/session.py",
        "from collect.native import _lib\n",
        "only collect/native",
        "from collect.native import engine\n",
    ),
    Case(
        named("python_door", NATIVE),
        "collect/api.py",
        "from .native._lib import ffi\n",
        "only collect/native",
        "",
    ),
    Case(
        named("environment"),
        "collect/api.py",
        'import os\nos.environ["A"]\n',
        "api.py:2: os.environ",
        "import os\nos.getpid()\n",
    ),
    Case(named("environment"), "collect/api.py", "from os import getenv\n", "os.getenv", ""),
    Case(
        named("printing"),
        "collect/api.py",
        "print(1)\n",
        "print outside",
        "file.print(1)\n",
    ),
    Case(named("printing"), "collect/api.py", "import sys\nsys.exit(1)\n", "sys.exit", ""),
    Case(
        named("printing"),
        "collect/__main__.py",
        "raise SystemExit(1)\n",
        "SystemExit",
        "import sys\nsys.exit(main())\n",
    ),
    Case(
        named("sleeping"),
        "tests/unit/test_a.py",
        "import time\ntime.sleep(1)\n",
        "test_a.py:2: time.sleep",
        "clock.sleep(1)\n",
    ),
    Case(named("sleeping"), "tests/sim/a.py", "from time import sleep\n", "time.sleep", ""),
]


def label(case: Case) -> str:
    name = case.check.func.__name__  # type: ignore[attr-defined]
    return "-".join([name, *case.check.keywords.get("door", "").split()])  # type: ignore


@pytest.mark.parametrize("case", CASES, ids=label)
def test_the_check_reports_what_breaks_its_rule(case: Case) -> None:
    reports = list(case.check(Source(case.path, case.bad)))

    assert len(reports) == 1
    assert case.reported in reports[0]


@pytest.mark.parametrize("case", CASES, ids=label)
def test_the_check_is_silent_about_what_keeps_its_rule(case: Case) -> None:
    is_about_the_path = case.bad == case.good
    assert is_about_the_path or not list(case.check(Source(case.path, case.good)))


def test_every_check_is_proved_able_to_fail() -> None:
    proved = {label(case) for case in CASES}
    text = (ROOT / "tests/test_tidy.py").read_text()

    def wanted() -> Iterator[str]:
        for name in dir(tidy):
            if f"assert_kept(tidy.{name})" in text:
                yield name
        yield from (f"c_door-{door}" for door in tidy.C_DOORS)
        yield from (f"python_door-{door}" for door in tidy.PYTHON_DOORS)

    assert set(wanted()) - proved == set()
    assert "c_own_header" in proved


def test_a_door_is_open_at_home() -> None:
    assert not list(tidy.c_door(Source("csrc/base/alloc.c", "free(x);"), "heap"))
    assert not list(tidy.python_door(Source("collect/net/bus.py", "import zmq"), "zmq"))
    assert not list(tidy.environment(Source("collect/config.py", "import os\nos.environ")))


def test_a_folder_that_is_no_package_is_reported() -> None:
    paths = {"collect/__init__.py", "collect/net/bus.py", "collect/wire/__init__.py"}

    assert list(tidy.package_files(paths)) == [
        "collect/net: no __init__.py",
        "collect: no py.typed",
    ]


def test_a_c_file_that_is_not_built_is_reported() -> None:
    builds = {"csrc": "'kernels/reduce_' + isa, 'base/a.c'", "tests/c": "'base/test_a.c'"}
    paths = {
        "csrc/base/a.c",
        "csrc/base/b.c",
        "csrc/kernels/reduce_avx2.c",
        "tests/c/base/test_b.c",
    }

    assert list(tidy.unbuilt_c(paths, builds)) == [
        "csrc/base/b.c is not built",
        "tests/c/base/test_b.c is not built",
    ]
