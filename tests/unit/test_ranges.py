"""Iterating over ranges, of a source that the test drives."""

import asyncio
from collections.abc import Callable

import pytest

from collect.api.ranges import Ranges, bounds, covers
from collect.errors import InvalidArgument, OperationFailed, RangesRevoked, Timeout
from collect.native.ranges import Attempt, Production, Range


class Script:
    """Does the next thing at each look; nothing when there is none."""

    def __init__(self, *steps: "Callable[[Script], None]") -> None:
        self.attempt = Attempt(0)
        self.is_over = False
        self.steps = list(steps)

    def advance(self, timeout_s: float) -> bool:
        del timeout_s
        if self.is_over or not self.steps:
            return False
        self.steps.pop(0)(self)
        return True


def gives(begin: int, end: int) -> Callable[[Script], None]:
    return lambda script: script.attempt.ranges.append(Range(begin, end))


def begins(epoch: int) -> Callable[[Script], None]:
    def step(script: Script) -> None:
        script.attempt = Attempt(epoch)

    return step


def ends(script: Script) -> None:
    script.is_over = True


def settles() -> None:
    """The operation has succeeded."""


def fails() -> None:
    raise OperationFailed("it failed")


def ranges_of(*steps: Callable[[Script], None]) -> Ranges:
    return Ranges(Script(*steps), settles, None)


def test_every_range_is_given_once_and_the_end_is_the_operations() -> None:
    ranges = ranges_of(begins(5), gives(3, 7), gives(0, 3), ends)

    assert list(ranges) == [(3, 7), (0, 3)]
    assert list(ranges) == []


def test_who_has_ranges_of_an_attempt_that_is_over_is_told_so() -> None:
    script = Script(begins(5), gives(3, 7), begins(6), gives(0, 9), ends)
    ranges = Ranges(script, settles, None)

    assert next(ranges) == (3, 7)
    with pytest.raises(RangesRevoked, match=r"iterate over work.ranges\(\) again"):
        next(ranges)
    assert list(Ranges(script, settles, None)) == [(0, 9)]


def test_who_has_none_goes_on_with_the_new_attempt() -> None:
    assert list(ranges_of(begins(5), begins(6), gives(0, 9), ends)) == [(0, 9)]


def test_two_iterate_over_one_operation() -> None:
    script = Script(begins(5), gives(3, 7), gives(0, 3), ends)
    one, other = Ranges(script, settles, None), Ranges(script, settles, None)

    assert [next(one), next(other), next(other)] == [(3, 7), (3, 7), (0, 3)]
    assert [*one, *other] == [(0, 3)]


def test_a_failure_ends_the_iteration() -> None:
    ranges = Ranges(Script(begins(5), gives(0, 3), ends), fails, None)

    assert next(ranges) == (0, 3)
    with pytest.raises(OperationFailed, match="it failed"):
        next(ranges)


def test_a_range_that_does_not_come_in_time_is_missed() -> None:
    ranges = Ranges(Script(begins(5), gives(0, 3)), settles, 0.0)

    with pytest.raises(Timeout, match="no more of the result is final after 0 s"):
        next(ranges)


def test_a_coroutine_gets_the_same() -> None:
    async def collected(ranges: Ranges) -> list[Range]:
        return [each async for each in ranges]

    assert asyncio.run(collected(ranges_of(begins(5), gives(3, 7), ends))) == [(3, 7)]
    revoked = ranges_of(begins(5), gives(3, 7), begins(6), ends)
    with pytest.raises(RangesRevoked):
        asyncio.run(collected(revoked))


@pytest.mark.parametrize(
    ("elements", "found"),
    [
        (slice(None), (0, 10)),
        (slice(2, 5), (2, 5)),
        (slice(-3, None), (7, 10)),
        (slice(5, 2), (5, 5)),
        (slice(3, 99), (3, 10)),
    ],
)
def test_a_slice_has_bounds(elements: slice, found: tuple[int, int]) -> None:
    assert bounds(elements, 10) == found


@pytest.mark.parametrize("elements", [5, slice(0, 5, 2), slice(None, None, -1)])
def test_what_is_no_plain_slice_is_refused(elements: slice) -> None:
    with pytest.raises(InvalidArgument, match="must be a slice without a step"):
        bounds(elements, 10)


def test_elements_are_covered_by_several_ranges_or_not() -> None:
    script = Script(begins(5), gives(3, 7), gives(0, 2), gives(7, 9))

    assert covers(script, 3, 9)
    assert covers(script, 4, 4)
    assert not covers(script, 1, 4)
    assert not covers(script, 8, 10)


def test_a_new_attempt_covers_nothing_yet() -> None:
    assert not covers(Script(begins(5), gives(0, 9), begins(6)), 0, 1)


def test_a_production_begins_with_all_of_it_missing() -> None:
    production = Production(7)

    assert (production.total, production.left) == (7, 7)
