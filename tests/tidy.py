"""The house rules as functions from source text to complaints; test_tidy.py runs them.

Python is read with `ast`. C is read by blanking comments, literals and directives and counting
braces, which is enough for code that keeps these rules.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parent.parent
FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 600
LINE_COLUMNS_MAX = 100
TAB_COLUMNS = 4
TEXT_SUFFIXES = {".c", ".h", ".py", ".pyi", ".md", ".toml", ".build", ".options", ".txt", ".cfg"}
TEXT_NAMES = {"Makefile", "LICENSE", ".editorconfig", ".clang-format", ".gitignore", "run"}


@dataclass(frozen=True)
class Source:
    """One file: its path from the repository's root, with forward slashes, and its text."""

    path: str
    text: str

    @property
    def parts(self) -> tuple[str, ...]:
        return PurePosixPath(self.path).parts

    @property
    def is_c(self) -> bool:
        return self.path.endswith((".c", ".h"))

    @property
    def is_python(self) -> bool:
        return self.path.endswith(".py")

    @property
    def is_code(self) -> bool:
        """The limits on lengths hold for these."""
        suffix = self.path.endswith((".c", ".h", ".py", ".pyi"))
        return suffix and self.is_under("csrc", "collect", "bindings", "tests", "examples")

    def is_under(self, *folders: str) -> bool:
        return any(self.path == folder or self.path.startswith(folder + "/") for folder in folders)

    @cached_property
    def lines(self) -> list[str]:
        return self.text.splitlines()

    @cached_property
    def tree(self) -> ast.Module:
        """Empty when the text does not parse: one check reports that, and the others go on."""
        try:
            return ast.parse(self.text, self.path)
        except SyntaxError:
            return ast.Module(body=[], type_ignores=[])

    @cached_property
    def c_code(self) -> str:
        """C without comments, literals' contents and directives; every line keeps its place."""
        return blank_directives(blank_comments(self.text))

    def at(self, line: int, complaint: str) -> str:
        return f"{self.path}:{line}: {complaint}"


Check = Callable[[Source], Iterator[str]]


def sources() -> list[Source]:
    """Every text file that is, or may become, part of the repository."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    try:
        listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        paths = [ROOT / line for line in listing.stdout.splitlines()]
    except (FileNotFoundError, subprocess.CalledProcessError):  # no git, or no repository
        paths = [path for path in ROOT.rglob("*") if not is_generated(path.relative_to(ROOT))]
    texts = [path for path in paths if path.suffix in TEXT_SUFFIXES or path.name in TEXT_NAMES]
    found = sorted(path for path in set(texts) if path.is_file())
    return [Source(path.relative_to(ROOT).as_posix(), path.read_text("utf-8")) for path in found]


def is_generated(path: Path) -> bool:
    generated = ("build", "dist", ".venv", ".git", "__pycache__")
    return any(part in generated or part.startswith("build-") for part in path.parts[:-1])


# ---- reading C -----------------------------------------------------------------------------------

COMMENT_OR_LITERAL = re.compile(
    r"""//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'""", re.S
)
DIRECTIVE = re.compile(r"^[ \t]*#(?:[^\n\\]|\\.|\\\n)*", re.M)


def blanked(text: str) -> str:
    return re.sub(r"[^\n\t]", " ", text)


def blank_comments(text: str) -> str:
    def blank(match: re.Match[str]) -> str:
        found = match.group()
        return blanked(found) if found[0] == "/" else found[0] + blanked(found[1:-1]) + found[0]

    return COMMENT_OR_LITERAL.sub(blank, text)


def blank_directives(code: str) -> str:
    return DIRECTIVE.sub(lambda match: blanked(match.group()), code)


def line_of(text: str, offset: int) -> int:
    return text.count("\n", 0, offset) + 1


def c_functions(source: Source) -> Iterator[tuple[str, int, int]]:
    """Name, first and last line of each function that is defined in the file."""
    code, depth, begin, first = source.c_code, 0, 0, None
    for match in re.finditer(r"[{};]", code):
        if match.group() == "{":
            head = code[begin : match.start()]
            if depth == 0 and re.search(r"\)\s*$", head) and "=" not in head:
                first = begin + len(head) - len(head.lstrip())
                signature = re.sub(r"__attribute__\s*\(\(.*?\)\)", "", head)
                name = re.search(r"(\w+)\s*\(", signature)
            depth += 1
        elif match.group() == "}":
            depth -= 1
            if depth == 0 and first is not None:
                label = name.group(1) if name else "?"
                yield label, line_of(code, first), line_of(code, match.start())
                first = None
        if depth == 0:
            begin = match.end()


def c_includes(source: Source) -> list[tuple[int, str]]:
    pattern = re.compile(r'^[ \t]*#[ \t]*include[ \t]+("[^"]+"|<[^>]+>)', re.M)
    return [(line_of(source.text, m.start()), m.group(1)) for m in pattern.finditer(source.text)]


# ---- reading Python ------------------------------------------------------------------------------


def package_of(path: str) -> list[str]:
    """The package whose names a relative import in this file begins at."""
    return list(PurePosixPath(path).parts[:-1])


def imports(source: Source) -> Iterator[tuple[int, str]]:
    """Line and full dotted name of everything imported, wherever it stands."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = package_of(source.path)
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, node.module] if node.module else base)
            yield from ((node.lineno, f"{stem}.{alias.name}") for alias in node.names)


def is_of(name: str, module: str) -> bool:
    return name == module or name.startswith(module + ".")


def uses(source: Source, *names: str) -> Iterator[tuple[int, str]]:
    """Lines that read one of the dotted names, or import it."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Name | ast.Attribute) and ast.unparse(node) in names:
            yield node.lineno, ast.unparse(node)
    yield from ((line, name) for line, name in imports(source) if name in names)


def syntax(source: Source) -> Iterator[str]:
    """Python parses, with the oldest Python that the package allows."""
    if source.is_python:
        try:
            ast.parse(source.text, source.path, feature_version=(3, 11))
        except SyntaxError as error:
            yield source.at(error.lineno or 1, error.msg)


# ---- lengths -------------------------------------------------------------------------------------


def function_lengths(source: Source) -> Iterator[str]:
    """A function has at most 70 lines; a docstring is not counted."""
    if not source.is_code:
        return
    found = c_functions(source) if source.is_c else python_functions(source)
    for name, first, count in ((n, f, last - f + 1) for n, f, last in found):
        if count > FUNCTION_LINES_MAX:
            yield source.at(first, f"{name} has {count} lines, over {FUNCTION_LINES_MAX}")


def python_functions(source: Source) -> Iterator[tuple[str, int, int]]:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            doc = node.body[0] if ast.get_docstring(node) is not None else None
            doc_lines = doc.end_lineno - doc.lineno + 1 if doc else 0
            yield node.name, node.lineno, node.end_lineno - doc_lines


def file_lengths(source: Source) -> Iterator[str]:
    """A file has at most 600 lines."""
    if source.is_code and len(source.lines) > FILE_LINES_MAX:
        yield source.at(1, f"{len(source.lines)} lines, over {FILE_LINES_MAX}")


def line_widths(source: Source) -> Iterator[str]:
    """A line has at most 100 columns, a tab counting 4."""
    for number, line in enumerate(source.lines, 1):
        if source.is_code and len(line.expandtabs(TAB_COLUMNS)) > LINE_COLUMNS_MAX:
            columns = len(line.expandtabs(TAB_COLUMNS))
            yield source.at(number, f"{columns} columns, over {LINE_COLUMNS_MAX}")


# ---- white space and words -----------------------------------------------------------------------


def tabs(source: Source) -> Iterator[str]:
    """Python is indented with spaces; C with tabs, and spaces only align."""
    if source.is_python:
        for number, line in enumerate(source.lines, 1):
            if "\t" in line:
                yield source.at(number, "a tab in Python")
    elif source.is_c:
        braces = parentheses = 0
        for number, line in enumerate(source.c_code.splitlines(), 1):
            is_aligned = parentheses > 0 and braces == 0
            is_comment = source.lines[number - 1].lstrip().startswith(("*", "/*"))
            if line.startswith(" ") and line.strip() and not is_aligned and not is_comment:
                yield source.at(number, "indented with spaces")
            braces += line.count("{") - line.count("}")
            parentheses += line.count("(") - line.count(")")


def line_ends(source: Source) -> Iterator[str]:
    """No white space ends a line; one newline ends a file."""
    for number, line in enumerate(source.lines, 1):
        if line != line.rstrip():
            yield source.at(number, "white space at the end of the line")
    if source.text and (not source.text.endswith("\n") or source.text.endswith("\n\n")):
        yield source.at(len(source.lines), "a file ends with exactly one newline")


MARKERS = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")
FOLDERS = "wo" + "rk|ro" + "ot|tm" + "p|ho" + "me"
PRIVATE = re.compile(rf"(?<![\w.$~{{}}-])/(?:{FOLDERS})\b|iss" + "ue #", re.I)


def markers(source: Source) -> Iterator[str]:
    """Unfinished work is finished, or it is not there."""
    for number, line in enumerate(source.lines, 1):
        if found := MARKERS.search(line):
            yield source.at(number, f"a marker of unfinished work: {found.group()}")


def private_words(source: Source) -> Iterator[str]:
    """Text names no path of somebody's machine and no tracker's numbers."""
    for number, line in enumerate(source.lines, 1):
        if found := PRIVATE.search(line):
            yield source.at(number, f"means nothing to a reader: {found.group()!r}")


# ---- C: dependencies and doors -------------------------------------------------------------------

LEAVES = {"base", "include"}
C_LAYERS = {
    "include": {"include"},
    "base": LEAVES,
    "kernels": LEAVES | {"kernels"},
    "wire": LEAVES | {"wire"},
    "plan": LEAVES | {"plan"},
    "shm": LEAVES | {"kernels", "shm"},
    "transport": LEAVES | {"wire", "transport"},
    "exec": LEAVES | {"kernels", "wire", "plan", "transport", "exec"},
    "comm": LEAVES | {"kernels", "wire", "plan", "transport", "exec", "shm", "comm"},
}
# One file looks sideways: the checksum asks the only reader of cpuid for its instruction.
C_SIDEWAYS = {("csrc/wire/crc32c.c", '"kernels/kernels.h"')}
HEAP = "malloc calloc realloc reallocarray free aligned_alloc posix_memalign strdup strndup"
# What is behind the door, as a regular expression for a called name, and where the door is.
C_DOORS = {
    "heap": (HEAP.replace(" ", "|"), {"csrc/base/alloc.c"}),
    "clock": ("clock_gettime|gettimeofday|timespec_get|time", {"csrc/base/clock.c"}),
    "readiness": (r"epoll_\w+|timerfd_\w+|eventfd\w*", {"csrc/transport/loop.c"}),
    "sockets": (
        "socket|socketpair|accept4?|connect|bind|listen",
        {"csrc/transport/stream_tcp.c", "csrc/transport/listener.c"},
    ),
    "mappings": (
        "mmap|munmap|memfd_create|posix_fallocate",
        {"csrc/shm/segment.c", "csrc/shm/heap.c", "csrc/transport/stream_shm.c"},
    ),
    "environment": ("getenv|secure_getenv|setenv|putenv|unsetenv", set()),
    "processor": (
        r"__builtin_cpu_\w+|__get_cpuid\w*|__cpuid\w*|getauxval",
        {"csrc/kernels/dispatch.c"},
    ),
}


def c_layers(source: Source) -> Iterator[str]:
    """base <- kernels, wire, plan; base, wire <- transport; those <- exec <- comm."""
    if not (source.is_c and source.is_under("csrc")):
        return
    layer = source.parts[1]
    if layer not in C_LAYERS:
        yield source.at(1, f"csrc/{layer} is not in the table of layers")
        return
    for line, name in c_includes(source):
        folder = PurePosixPath(name.strip('"')).parts[0]
        is_allowed = folder in C_LAYERS[layer] or (source.path, name) in C_SIDEWAYS
        if name.startswith('"') and not is_allowed:
            yield source.at(line, f"{layer} may not include {name}")


def c_include_paths(source: Source) -> Iterator[str]:
    """Includes are written from csrc/, never with dots."""
    if source.is_c:
        for line, name in c_includes(source):
            if "../" in name or "./" in name:
                yield source.at(line, f"{name} climbs")


def c_own_header(source: Source, exists: Callable[[str], bool]) -> Iterator[str]:
    """x.c includes x.h before anything else, so that x.h is known to stand alone."""
    if not (source.path.endswith(".c") and source.is_under("csrc")):
        return
    header = source.path[:-1] + "h"
    own = '"' + "/".join(PurePosixPath(header).parts[1:]) + '"'
    if exists(header) and [name for _, name in c_includes(source)][:1] != [own]:
        yield source.at(1, f"the first include is not {own}")


def c_guards(source: Source) -> Iterator[str]:
    """plan/plan.h is guarded by COL_PLAN_PLAN_H."""
    if source.path.endswith(".h") and source.is_under("csrc"):
        words = PurePosixPath(source.path).with_suffix("").parts[1:]
        is_public = words[0] == "include"
        stem = (words[1] if is_public else "_".join(["COL", *words])).upper()
        if f"#ifndef {stem}_H\n#define {stem}_H\n" not in source.text:
            yield source.at(1, f"not guarded by {stem}_H")


def c_door(source: Source, door: str) -> Iterator[str]:
    """Each thing outside the library is called from one place."""
    called, homes = C_DOORS[door]
    if source.is_c and source.is_under("csrc") and source.path not in homes:
        for match in re.finditer(rf"(?<![\w.>])({called})\s*\(", source.c_code):
            line = line_of(source.c_code, match.start())
            yield source.at(line, f"{match.group(1)} is behind the {door} door: {sorted(homes)}")


# ---- Python: dependencies and doors --------------------------------------------------------------

GROUND = {"errors", "types", "config"}
BELOW_SESSION = GROUND | {"wire", "membership", "net", "native"}
BELOW_API = BELOW_SESSION | {"session"}
BELOW_FACES = BELOW_API | {"api"}
PYTHON_LAYERS = {
    **dict.fromkeys(GROUND, GROUND),
    "wire": GROUND | {"wire"},
    "membership": GROUND | {"wire", "membership"},
    "net": GROUND | {"wire", "membership", "net"},
    "native": GROUND | {"native"},
    "session": BELOW_API,
    "api": BELOW_FACES,
    "torch": BELOW_FACES | {"torch"},
    "daemon": BELOW_FACES | {"daemon"},
    "cli": BELOW_FACES | {"cli", "daemon"},
    "__init__": BELOW_FACES,
    "__main__": {"cli"},
}
STANDARD = frozenset(sys.stdlib_module_names)
PURE = ("collect/wire", "collect/membership")
IMPURE = "random secrets uuid time datetime asyncio threading socket select selectors subprocess"
PYTHON_DOORS = {
    "zmq": ("collect/net",),
    "msgpack": ("collect/wire/codec.py",),
    "torch": ("collect/torch", "collect/cli/bench/gloo.py"),  # the latter: to compare with
    "mpi4py": ("collect/cli/bench/mpi.py",),  # to compare with
    "matplotlib": ("collect/cli/bench/plot.py",),
    "argparse": ("collect/cli",),
    "collect.native._lib": ("collect/native",),
}


def unit_of(path: str) -> str:
    """The part of the package that a file is of: collect/net/bus.py is of net."""
    return PurePosixPath(path).parts[1].removesuffix(".py")


def python_layers(source: Source) -> Iterator[str]:
    """errors, types, config <- wire, membership <- net; native; <- session <- api <- faces."""
    if not (source.is_python and source.is_under("collect")):
        return
    unit = unit_of(source.path)
    if unit not in PYTHON_LAYERS:
        yield source.at(1, f"collect.{unit} is not in the table of layers")
        return
    for line, name in imports(source):
        target = name.split(".")[1] if name.startswith("collect.") else None
        if target in PYTHON_LAYERS and target not in PYTHON_LAYERS[unit]:
            yield source.at(line, f"{unit} may not import collect.{target}")


def python_pure(source: Source) -> Iterator[str]:
    """wire and membership take time and chance as arguments, and need nothing installed."""
    is_ground = source.is_under("collect") and unit_of(source.path) in GROUND
    if not source.is_python or not (source.is_under(*PURE) or is_ground):
        return
    for line, name in imports(source):
        top = name.split(".")[0]
        if not is_ground and top in IMPURE.split():
            yield source.at(line, f"{name} makes a decision depend on more than its arguments")
        is_codec = source.path == "collect/wire/codec.py" and top == "msgpack"
        if top not in STANDARD and top != "collect" and not is_codec:
            yield source.at(line, f"{name} is not of the standard library")


def python_door(source: Source, door: str) -> Iterator[str]:
    """Each foreign module is imported in one place."""
    homes = PYTHON_DOORS[door]
    if source.is_python and source.is_under("collect") and not source.is_under(*homes):
        for line, name in imports(source):
            if is_of(name, door):
                yield source.at(line, f"only {homes[0]} imports {door}")


def environment(source: Source) -> Iterator[str]:
    """Configuration enters once: only config.py reads the environment."""
    if source.is_python and source.is_under("collect") and source.path != "collect/config.py":
        for line, name in uses(source, "os.environ", "os.environb", "os.getenv", "os.putenv"):
            yield source.at(line, f"{name} is read outside collect/config.py")


def printing(source: Source) -> Iterator[str]:
    """Only the command line prints and ends the process."""
    if not source.is_python or not source.is_under("collect") or source.is_under("collect/cli"):
        return
    names = ["print", "sys.stdout", "input", "exit", "quit", "os._exit", "SystemExit"]
    if source.path != "collect/__main__.py":
        names.append("sys.exit")
    for line, name in uses(source, *names):
        yield source.at(line, f"{name} outside collect/cli")


def sleeping(source: Source) -> Iterator[str]:
    """A unit test or a simulation that sleeps is slow, and wrong on a slow machine."""
    if source.is_python and source.is_under("tests/unit", "tests/sim"):
        for line, name in uses(source, "time.sleep"):
            yield source.at(line, f"{name} in a test that has no reason to wait")


def package_files(paths: set[str]) -> Iterator[str]:
    """Every folder of Python in the package is a package, and says that it has types."""
    folders = {str(PurePosixPath(path).parent) for path in paths if path.startswith("collect/")}
    for folder in sorted(folders):
        has_modules = any(re.fullmatch(rf"{folder}/[^/]+\.py", path) for path in paths)
        if has_modules and f"{folder}/__init__.py" not in paths:
            yield f"{folder}: no __init__.py"
    if "collect/__init__.py" in paths and "collect/py.typed" not in paths:
        yield "collect: no py.typed"


def unbuilt_c(paths: set[str], builds: dict[str, str]) -> Iterator[str]:
    """Every C file is named by the build of its tree, so that none is dead."""
    for path in sorted(paths):
        for tree, build in builds.items():
            if path.startswith(tree + "/") and path.endswith(".c"):
                name = path.removeprefix(tree + "/")
                variant = re.sub(r"reduce_(avx2|avx512|neon)", "reduce_", name).removesuffix(".c")
                if f"'{name}'" not in build and f"'{variant}'" not in build:
                    yield f"{path} is not built"
