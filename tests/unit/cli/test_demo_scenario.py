"""Faults come one after the other, each when the group has recovered from the one before."""

import pytest

from collect.cli.demo.scenario import (
    Continue,
    Kill,
    Scenario,
    Start,
    Stop,
    pace_for,
)
from collect.cli.demo.story import NS_PER_S, Story
from collect.cli.usage import UsageError
from tests.unit.cli.demo_stories import joined, stepped

STEPS = 100


def make(seed: int = 0) -> tuple[Scenario, Story]:
    scenario = Scenario(peers=4, seed=seed, timeout_s=1.0, with_faults=True)
    story = Story(steps=STEPS, started_ns=0)
    for name in scenario.names:
        story.spawned(name, 1, 0, late=False)
        story.on(name, joined(0), 0)
    return scenario, story


def lead(story: Story, names: list[str], step: int) -> None:
    for name in names:
        story.on(name, stepped(step - 1, names), 0)


def test_faults_come_in_order_and_wait_for_recovery() -> None:
    scenario, story = make()
    killed, stopped = scenario.killed, scenario.stopped
    assert killed is not None
    assert stopped is not None
    others = [name for name in scenario.names if name not in {killed, stopped}]

    lead(story, list(scenario.names), 14)
    assert scenario.next_action(story, 0) is None
    lead(story, list(scenario.names), 15)
    kill = scenario.next_action(story, 0)
    assert isinstance(kill, Kill)
    assert (kill.victim, kill.step) == (killed, 20)

    lead(story, others, 40)
    assert scenario.next_action(story, 0) is None  # it is not dead yet
    story.killing(killed, 20, 2, 0)
    story.exited(killed, -9, 0)
    assert scenario.next_action(story, 0) == Stop(stopped)

    story.stopped(stopped, 0)
    assert scenario.next_action(story, 3 * NS_PER_S - 1) is None
    assert scenario.next_action(story, 3 * NS_PER_S) == Continue(stopped)

    story.continued(stopped, 3 * NS_PER_S)
    lead(story, others, 70)
    assert scenario.next_action(story, 4 * NS_PER_S) is None  # it is not back yet
    story.on(stopped, joined(69), 4 * NS_PER_S)
    assert scenario.next_action(story, 4 * NS_PER_S) == Start("peer-4")
    assert scenario.next_action(story, 5 * NS_PER_S) is None


def test_the_seed_chooses_two_victims() -> None:
    chosen = {(make(seed)[0].killed, make(seed)[0].stopped) for seed in range(40)}

    assert len(chosen) > 5
    assert all(killed != stopped for killed, stopped in chosen)


def test_the_seed_chooses_a_frame_in_the_middle_of_the_all_reduce() -> None:
    frames = {make(seed)[0].kill_frame for seed in range(60)}

    assert frames == {1, 2, 3, 4, 5}  # of 6


def test_without_faults_nothing_happens() -> None:
    scenario = Scenario(peers=1, seed=0, timeout_s=1.0, with_faults=False)
    story = Story(steps=STEPS, started_ns=0)
    story.spawned("peer-0", 1, 0, late=False)
    story.on("peer-0", joined(0), 0)
    lead(story, ["peer-0"], STEPS)

    assert scenario.next_action(story, 0) is None


def test_the_pace_leaves_time_for_the_faults() -> None:
    pace_s = pace_for(360, timeout_s=1.0, asked_s=None, with_faults=True)

    assert 18 <= pace_s * 360 <= 25
    assert pace_for(360, timeout_s=1.0, asked_s=0.2, with_faults=True) == 0.2
    assert pace_for(360, timeout_s=1.0, asked_s=None, with_faults=False) == 0.0
    with pytest.raises(UsageError, match="--pace"):
        pace_for(360, timeout_s=1.0, asked_s=0.001, with_faults=True)
