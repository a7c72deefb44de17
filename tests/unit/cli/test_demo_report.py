"""The verdict on a run: what is fine is called fine, and each thing that is wrong is found."""

import dataclasses
import json

import pytest

from collect.cli.demo.report import Report, evaluate
from collect.cli.demo.story import Story
from tests.unit.cli.demo_stories import (
    DURATION_S,
    EXPECTED,
    JOIN_STEP,
    STEPS,
    finished,
    good_story,
    members_at,
    stepped,
)


def verdict(story: Story) -> Report:
    return evaluate(story, EXPECTED, DURATION_S)


def test_a_good_run_has_no_problems() -> None:
    report = verdict(good_story())

    assert report.problems == []
    assert report.is_good
    assert report.steps_lost == 0
    assert [result.peer for result in report.results] == ["peer-1", "peer-2", "peer-3", "peer-4"]
    assert json.loads(json.dumps(report.as_json()))["is_good"] is True


def test_recovery_times_are_those_of_the_last_survivor() -> None:
    recoveries = {recovery.event: recovery for recovery in verdict(good_story()).recoveries}

    assert recoveries["kill"].recovered_s == pytest.approx(0.012)
    assert recoveries["kill"].held_s == pytest.approx(0.012)
    assert recoveries["stop"].recovered_s == pytest.approx(1.1)
    assert recoveries["return"].recovered_s == pytest.approx(0.05)
    assert recoveries["return"].held_s == pytest.approx(0.002)
    assert recoveries["join"].recovered_s == pytest.approx(0.1)
    assert recoveries["join"].held_s == pytest.approx(0.002)


def test_a_survivor_that_is_slower_than_the_others_counts() -> None:
    story = good_story()
    steps = story.peers["peer-3"].incarnations[0].steps
    slow = dataclasses.replace(
        steps[3].operations[0], completed_ns=steps[3].operations[0].completed_ns + 5_000_000
    )
    steps[3] = dataclasses.replace(steps[3], operations=[slow])

    kill = verdict(story).recoveries[0]

    assert kill.recovered_s == pytest.approx(0.017)


def test_different_weights_are_found() -> None:
    story = good_story()
    story.peers["peer-3"].finished = finished(digest="f" * 32)

    assert any("weights differ" in problem for problem in verdict(story).problems)


def test_different_losses_of_a_step_are_found() -> None:
    story = good_story()
    story.peers["peer-2"].incarnations[0].steps[7] = stepped(7, members_at(7), loss=0.5)

    assert any("loss of step 7 differs" in problem for problem in verdict(story).problems)


@pytest.mark.parametrize("step", [0, 10, STEPS - 1])
def test_a_lost_step_is_found(step: int) -> None:
    story = good_story()
    del story.peers["peer-2"].incarnations[0].steps[step]

    report = verdict(story)

    assert report.steps_lost == 1
    assert "peer-2 lost 1 steps" in report.problems


def test_a_step_that_was_done_twice_is_found() -> None:
    story = good_story()
    steps = story.peers["peer-2"].incarnations[0].steps
    steps.insert(5, steps[5])

    assert verdict(story).steps_lost == 1


def test_steps_that_a_newcomer_missed_before_it_joined_are_not_lost() -> None:
    story = good_story()

    assert len(story.peers["peer-4"].steps) == STEPS - JOIN_STEP
    assert verdict(story).steps_lost == 0


def test_a_low_accuracy_is_found() -> None:
    story = good_story()
    story.peers["peer-1"].finished = finished(accuracy=0.94)

    assert any("below 0.95" in problem for problem in verdict(story).problems)


def test_an_accuracy_unlike_that_of_a_single_process_is_found() -> None:
    story = good_story()
    story.peers["peer-1"].finished = finished(accuracy=0.985)

    assert any("single process" in problem for problem in verdict(story).problems)


def test_a_peer_that_ends_badly_is_found() -> None:
    story = good_story()
    story.peers["peer-2"].exit_status = 1

    assert "peer-2 ended with exit status 1" in verdict(story).problems


def test_a_peer_that_does_not_end_is_found() -> None:
    story = good_story()
    story.peers["peer-2"].exit_status = None

    assert "peer-2 did not end" in verdict(story).problems


def test_a_peer_that_fails_is_found() -> None:
    story = good_story()
    story.peers["peer-2"].failure = "Timeout: op 3.1"

    assert "peer-2 failed: Timeout: op 3.1" in verdict(story).problems


def test_a_victim_that_survives_is_found() -> None:
    story = Story(steps=STEPS, started_ns=0)
    story.spawned("peer-0", 1, 0, late=False)

    report = verdict(story)

    assert any("should have been killed" in problem for problem in report.problems)
    assert "no peer finished" in report.problems
    assert "peer-4 was never started: training was over before" in report.problems


def test_a_fenced_peer_that_never_comes_back_is_found() -> None:
    story = good_story()
    del story.peers["peer-1"].incarnations[1]

    problems = verdict(story).problems

    assert "return of peer-1: the group did not recover from it" in problems
