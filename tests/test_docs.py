"""The examples in README.md and docs/ are run, so that what they promise is true.

A ```python block either begins with `# runs: N peers` and is run as N local peers of one group, or
is a fragment that contains `...` and only has to parse. In a ```console block every line that
begins with `$ collect` is run and must exit with 0; a command that cannot end by itself belongs in
a ```sh block. Relative links must lead to something.
"""

import ast
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.tidy import ROOT

PAGES = [path for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))]
LIMIT_S = 90.0
FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>[\w-]*)[^\n]*\n(?P<body>.*?)^ *```", re.M | re.S
)
RUNS = re.compile(r"^# runs: (\d+) peers?\b")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    page: str
    line: int
    language: str
    text: str

    @property
    def peers(self) -> int | None:
        found = RUNS.match(self.text)
        return int(found.group(1)) if found else None

    @property
    def commands(self) -> list[str]:
        """Lines after a prompt that run `collect`, each with its continuations."""
        joined = self.text.replace("\\\n", " ")
        lines = [line.removeprefix("$ ") for line in joined.splitlines() if line.startswith("$ ")]
        return [line for line in lines if line.split()[0] == "collect"]

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(page: str, text: str) -> Iterator[Block]:
    for match in FENCE.finditer(text):
        body = re.sub(rf"^{match['indent']}", "", match["body"], flags=re.M)
        line = text.count("\n", 0, match.start()) + 1
        yield Block(page, line, match["language"], body)


def complaint_about(block: Block) -> str | None:
    """Why a block can be neither run nor read as a fragment."""
    if block.language in {"py", "python3", "pycon"}:
        return f"{block}: say ```python, so that the example is tested"
    if block.language != "python":
        return None
    try:
        ast.parse(block.text)
    except SyntaxError as error:
        return f"{block}: does not parse: {error.msg}, line {error.lineno} of the block"
    if block.peers is None and "..." not in block.text:
        return f"{block}: begins with no `# runs: N peers` and is no fragment with `...`"
    return None


def program(block: Block, folder: Path) -> list[str]:
    script = folder / "example.py"
    script.write_text(block.text)
    if block.peers == 1:
        return [sys.executable, str(script)]
    return [sys.executable, "-m", "collect", "run", "-n", str(block.peers), str(script)]


def run(command: Sequence[str] | str, folder: Path, limit_s: float = LIMIT_S) -> None:
    """Succeeds, or fails with the output; whatever the command started is ended with it."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    process = subprocess.Popen(
        command,
        shell=isinstance(command, str),
        cwd=folder,
        env={**os.environ, "PATH": path, "PYTHONSAFEPATH": "1", "COLUMNS": "100"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    with process:
        try:
            output, _ = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            pytest.fail(f"{command} took longer than {limit_s:g} s:\n{output}")
    if process.returncode != 0:
        pytest.fail(f"{command} exited with {process.returncode}:\n{output}")


def dead_links(page: Path) -> list[str]:
    found = [link.split("#")[0] for link in LINK.findall(FENCE.sub("", page.read_text()))]
    local = [link for link in found if link and "://" not in link and "mailto:" not in link]
    return [link for link in local if not (page.parent / link).exists()]


BLOCKS = [
    block
    for page in PAGES
    if page.exists()
    for block in blocks_of(page.relative_to(ROOT).as_posix(), page.read_text())
]
RUNNABLE = [block for block in BLOCKS if block.language == "python" and block.peers]
CONSOLE = [block for block in BLOCKS if block.language == "console" and block.commands]


# ---- the pages -----------------------------------------------------------------------------------


def test_every_python_example_is_run_or_is_a_fragment() -> None:
    complaints = [complaint for block in BLOCKS if (complaint := complaint_about(block))]
    assert not complaints, "\n".join(complaints)


@pytest.mark.e2e
@pytest.mark.time_limit(120)
@pytest.mark.parametrize("block", RUNNABLE, ids=str)
def test_the_example_runs(block: Block, tmp_path: Path) -> None:
    run(program(block, tmp_path), tmp_path)


@pytest.mark.e2e
@pytest.mark.time_limit(240)
@pytest.mark.parametrize("block", CONSOLE, ids=str)
def test_the_commands_succeed(block: Block, tmp_path: Path) -> None:
    for command in block.commands:
        run(command, tmp_path)


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.exists()], ids=lambda page: page.name
)
def test_links_lead_somewhere(page: Path) -> None:
    assert dead_links(page) == []


# ---- the mechanism itself ------------------------------------------------------------------------

PAGE = """\
Words.

```python
# runs: 3 peers
print(1)
```

* In a list:

  ```console
  $ collect plan --world 4 \\
      --bytes 1Mi
  rank 0
  $ make test
  $ collect demo
  ```

```python
group.all_reduce(...)
```
"""


def test_blocks_are_found_with_their_places_and_kinds() -> None:
    first, second, third = blocks_of("page.md", PAGE)

    assert (str(first), first.peers, first.text) == (
        "page.md:3",
        3,
        "# runs: 3 peers\nprint(1)\n",
    )
    assert second.commands == ["collect plan --world 4      --bytes 1Mi", "collect demo"]
    assert (third.line, third.peers) == (18, None)


@pytest.mark.parametrize(
    ("language", "text", "complaint"),
    [
        ("python", "print(1)\n", "is no fragment"),
        ("python", "# runs: 1 peer\nprint(\n", "does not parse"),
        ("python", "# runs: many peers\nprint(1)\n", "is no fragment"),
        ("py", "print(1)\n", "say ```python"),
    ],
)
def test_an_example_that_would_escape_is_reported(language: str, text: str, complaint: str) -> None:
    assert complaint in str(complaint_about(Block("page.md", 1, language, text)))


@pytest.mark.parametrize("text", ["# runs: 1 peer\nprint(1)\n", "with join(...): ...\n"])
def test_an_example_that_is_marked_or_a_fragment_is_fine(text: str) -> None:
    assert complaint_about(Block("page.md", 1, "python", text)) is None


def test_one_peer_is_a_program_and_several_are_launched(tmp_path: Path) -> None:
    alone = program(Block("page.md", 1, "python", "# runs: 1 peer\n"), tmp_path)
    launched = program(Block("page.md", 1, "python", "# runs: 3 peers\n"), tmp_path)

    assert alone == [sys.executable, str(tmp_path / "example.py")]
    assert launched[1:6] == ["-m", "collect", "run", "-n", "3"]


def test_an_example_that_fails_fails_the_test_with_its_output(tmp_path: Path) -> None:
    block = Block("page.md", 1, "python", "# runs: 1 peer\nraise ValueError('seen')\n")

    with pytest.raises(pytest.fail.Exception, match=r"exited with 1(?s:.*)ValueError: seen"):
        run(program(block, tmp_path), tmp_path)


def test_an_example_that_works_passes(tmp_path: Path) -> None:
    run(program(Block("page.md", 1, "python", "# runs: 1 peer\nprint(1)\n"), tmp_path), tmp_path)


def test_an_example_that_never_ends_is_ended_with_all_it_started(tmp_path: Path) -> None:
    with pytest.raises(pytest.fail.Exception, match="took longer than"):
        run("sleep 60 & sleep 60", tmp_path, limit_s=0.2)


def test_a_dead_link_is_reported(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("[a](page.md#x) [b](https://example.org) [c](gone.md) [d](#here)\n")

    assert dead_links(page) == ["gone.md"]
