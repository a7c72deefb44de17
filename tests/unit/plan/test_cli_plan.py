"""`collect plan`."""

from pathlib import Path

import pytest

from collect.cli import main
from collect.cli.plan import HOPS, VOLUMES, count_cost
from collect.config import Algorithm
from collect.native.plan import Plan


@pytest.mark.parametrize("algorithm", HOPS)
@pytest.mark.parametrize("world", [2, 3, 8, 17])
def test_the_cost_that_is_counted_is_the_cost_that_is_promised(
    algorithm: Algorithm, world: int
) -> None:
    payload_bytes = 2 * world * 64 * 10

    cost = count_cost([Plan(algorithm, world, rank) for rank in range(world)], payload_bytes)

    assert cost.hops == HOPS[algorithm][1](world)
    assert max(cost.sent_bytes) == VOLUMES[algorithm][1](world, payload_bytes)
    links = {Algorithm.STAR: world - 1, Algorithm.RING: world if world > 2 else 1}
    assert len(cost.links) == links.get(algorithm, world * (world - 1) // 2)


def test_a_plan_is_printed_with_its_proof(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--world", "3", "--rank", "1", "--bytes", "200"]) == 0

    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "direct, rank 1 of 3, 200 bytes"
    assert "0 0 recv_reduce_in 1 64 … 128 <- rank 0" in lines
    assert "1 recv_reduce 1 64 … 128 <- rank 2 scale final" in lines
    assert "1 0 send_in 2 128 … 200 -> rank 2 (lane 0 step 1)" in lines
    assert "hops 2 one after the other (formula: 2)" in lines
    assert "links 3, at most 2 at one rank" in lines


def test_a_rooted_plan_of_hosts_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["plan", "hierarchical", "--collective", "broadcast", "--root", "2"]
    assert main([*arguments, "--world", "5", "--hosts", "2,3"]) == 0

    out = capsys.readouterr().out
    assert "hierarchical broadcast, rank 0 of 5, root 2, 1048576 bytes" in out
    assert "none found with 1 frame of credit" in out


def test_the_choice_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["plan", "--explain", "--collective", "all-reduce", "--bytes", "64Mi"]
    assert main([*arguments, "--world", "8", "--hosts", "4,4"]) == 0

    out = capsys.readouterr().out
    for name in ("direct", "ring", "star", "exchange", "tree", "circulant", "hierarchical"):
        assert f"│ {name} " in out
    assert "choice: hierarchical" in out


def test_all_plans_are_printed_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--algorithm", "ring", "--world", "4", "--all"]) == 0

    out = capsys.readouterr().out
    for rank in range(4):
        assert f"ring, rank {rank} of 4, 1048576 bytes" in out
    assert "6 one after the other (formula: 2(p-1) = 6)" in out


OWN = """
import collect

@collect.plan("chain")
def chain(plan):
    plan.slice(reduce={rank: rank - 1 for rank in range(plan.world - 1, 0, -1)})

@collect.plan("torn", collective="broadcast")
def torn(plan):
    plan.slice(spread={rank: 0 for rank in range(2, plan.world)})
"""


def test_a_plan_of_a_file_is_printed_with_its_proof(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "own.py"
    path.write_text(OWN)

    assert main(["plan", "chain", "--file", str(path), "--world", "3", "--rank", "2"]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "chain, rank 2 of 3, 1048576 bytes"
    assert "0 0 send_in 0 0 … 1048576 -> rank 1 (lane 0 step 0)" in lines
    assert "hops 4 one after the other" in lines

    assert main(["plan", "torn", "--file", str(path), "--world", "4"]) == 1
    out = capsys.readouterr().out
    assert out == (
        "proof: FAILED: slice 0: spread has nobody send to rank 1, which needs the result\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--world", "3"], "say which of its plans: chain, torn"),
        (["other", "--world", "3"], "it makes no other, only: chain, torn"),
        (["chain", "--world", "1"], "plans of your own begin with --world 2"),
        (["chain", "--world", "3", "--root", "3"], "a world of 3 has ranks 0 to 2"),
    ],
)
def test_what_a_file_has_not_is_said(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "own.py"
    path.write_text(OWN)

    assert main(["plan", "--file", str(path), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_file_without_plans_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "own.py"
    assert main(["plan", "--file", str(path), "--world", "3"]) == 2
    assert "there is no such file" in capsys.readouterr().err
    path.write_text("import collect\n")
    assert main(["plan", "--file", str(path), "--world", "3"]) == 2
    assert "it makes no plan" in capsys.readouterr().err


def test_a_world_of_one_needs_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--world", "1"]) == 0

    out = capsys.readouterr().out
    assert "copy_in" in out
    assert "nothing is exchanged" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--world", "4", "--rank", "4"], "a world of 4 has ranks 0 to 3"),
        (["--world", "4", "--rank", "-1"], "a world of 4 has ranks 0 to 3"),
        (["--world", "1", "--rank", "1"], "a world of 1 has rank 0 only"),
        (["--world", "0"], "'0' is not at least 1"),
        (["--world", "1025"], "a world has at most 1024 ranks"),
        (["--world", "4", "--algorithm", "shrub"], "invalid choice: 'shrub'"),
        (["bruck", "--world", "4"], "bruck has no all_reduce, only: all_to_all"),
        (["--world", "4", "--root", "4"], "--root 4: a world of 4 has ranks 0 to 3"),
        (["hierarchical", "--world", "4", "--radices", "2,3"], "with a product of 4"),
        (["hierarchical", "--world", "4", "--hosts", "2,3"], "not 4 ranks in all"),
        (["--world", "4", "--bytes", "many"], "'many' is not a size"),
        (["--world", "4", "--bytes", "9999999999Gi"], "not in 0 to 2^62"),
        ([], "--world"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", *arguments]) == 2

    said = capsys.readouterr()
    assert said.out == ""
    assert message in said.err
    assert said.err.count("\n") == 1
