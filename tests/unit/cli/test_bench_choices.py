"""Lists of choices on the command line of the benchmark."""

import argparse

import pytest

from collect.cli.bench.choices import name_list, peer_list, size_list, world_list
from collect.cli.usage import byte_count


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("64Ki", [65536]),
        ("8,1KiB,8", [8, 1024]),
        ("8:512", [8, 32, 128, 512]),
        ("8:100", [8, 32, 100]),
        ("8:64:2", [8, 16, 32, 64]),
        ("1MiB,8:16:2", [8, 16, 1 << 20]),
    ],
)
def test_sizes_are_single_or_ranges(text: str, found: list[int]) -> None:
    assert size_list(text) == found


@pytest.mark.parametrize("text", ["9:8", "8:64:1", "8:64:2:2", "", "8,", "8:", "1:1GiB:x", "0:8"])
def test_what_is_no_list_of_sizes_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        size_list(text)


def test_more_sizes_than_anybody_reads_are_refused() -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="more than"):
        size_list(",".join(map(str, range(1, 100))))


def test_worlds_have_several_members() -> None:
    assert world_list("2,4,2") == [2, 4]
    for text in ("1", "65", "2,x", ""):
        with pytest.raises(argparse.ArgumentTypeError):
            world_list(text)


def test_names_are_known_ones_and_all_stands_for_each() -> None:
    read = name_list(["a", "b"], has_all=True)

    assert read("b,a,b") == ["b", "a"]
    assert read("all") == ["a", "b"]
    with pytest.raises(argparse.ArgumentTypeError, match="'c' is none of: a, b, all"):
        read("a,c")


def test_a_peer_may_say_where_it_is() -> None:
    read = peer_list(["gloo", "mpich"])

    assert read("gloo,mpich=/opt/mpich") == {"gloo": None, "mpich": "/opt/mpich"}
    for text in ("nccl", "mpich=", "=x", ""):
        with pytest.raises(argparse.ArgumentTypeError):
            read(text)


@pytest.mark.parametrize(
    ("text", "count"),
    [("8", 8), ("4Ki", 4096), ("4KiB", 4096), ("1M", 10**6), ("2gi", 2 << 30), ("3k", 3000)],
)
def test_byte_counts_are_read(text: str, count: int) -> None:
    assert byte_count(text) == count


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5Mi", "Ki", "8 Ki", "8Xi", "1e3", "8i"])
def test_what_is_no_byte_count_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        byte_count(text)
