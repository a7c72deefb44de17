"""The Python face of plans."""

import pytest

from collect.config import Algorithm
from collect.errors import InvalidArgument
from collect.native.plan import BYTES_MAX, Plan, check


def test_a_plan_has_the_steps_that_the_core_prints() -> None:
    for algorithm in Algorithm:
        plan = Plan(algorithm, 5, 3)

        lines = str(plan).splitlines()

        assert lines[0].startswith(f"{algorithm.value}, rank 3 of 5: lanes {len(plan.lanes)},")
        steps = [step for lane in plan.lanes for step in lane]
        printed = [line.split() for line in lines if not line.startswith(("lane", algorithm.value))]
        assert [step.opcode for step in steps] == [words[1] for words in printed]
        assert [step.is_final for step in steps] == ["final" in words for words in printed]
        assert [step.is_scaled for step in steps] == ["scale" in words for words in printed]


def test_a_step_that_forwards_has_a_source_and_a_target() -> None:
    step = Plan(Algorithm.RING, 4, 1).lanes[0][1]

    assert (step.opcode, step.source, step.target) == ("recv_reduce_send", 0, 2)
    assert (step.target_lane, step.target_step) == (0, 2)


def test_a_step_that_only_works_has_neither() -> None:
    step = Plan(Algorithm.DIRECT, 3, 2).lanes[2][2]

    assert (step.opcode, step.source, step.target) == ("reduce_in", None, None)


def test_slices_follow_each_other_to_the_end() -> None:
    plan = Plan(Algorithm.DIRECT, 3, 0)

    assert [plan.slice_range(index, 200) for index in range(3)] == [(0, 64), (64, 128), (128, 200)]
    assert plan.slice_range(2, BYTES_MAX)[1] == BYTES_MAX


@pytest.mark.parametrize(
    ("world", "rank", "message"),
    [
        (0, 0, "a world of 0 ranks is not in 1 to 1024"),
        (1025, 0, "a world of 1025 ranks is not in 1 to 1024"),
        (4, 4, "no rank 4: a world of 4 has ranks 0 to 3"),
        (4, -1, "no rank -1: a world of 4 has ranks 0 to 3"),
    ],
)
def test_a_world_or_rank_out_of_range_is_refused(world: int, rank: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Plan(Algorithm.DIRECT, world, rank)


def test_a_slice_or_payload_out_of_range_is_refused() -> None:
    plan = Plan(Algorithm.RING, 3, 0)

    with pytest.raises(InvalidArgument, match="no slice 3: the plan has 3"):
        plan.slice_range(3, 100)
    with pytest.raises(InvalidArgument, match="not in 0 to 2"):
        plan.slice_range(0, BYTES_MAX + 1)
    with pytest.raises(InvalidArgument, match="not in 0 to 2"):
        plan.slice_range(0, -1)


def test_every_algorithm_is_right() -> None:
    assert [check(algorithm, 9, credit=1) for algorithm in Algorithm] == [None, None, None]


def test_a_check_of_nonsense_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="a world of 2000 ranks"):
        check(Algorithm.STAR, 2000)
    with pytest.raises(InvalidArgument, match="a credit of 0 frames"):
        check(Algorithm.STAR, 2, credit=0)
