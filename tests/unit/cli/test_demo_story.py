"""Messages of peers become states and a log."""

import dataclasses

import pytest

from collect.cli.demo.messages import Armed, Failed, Fenced, Membership, Message, decode, encode
from collect.cli.demo.story import PeerState, Story, describe_status
from tests.unit.cli.demo_stories import finished, good_story, joined, stepped

MESSAGES: list[Message] = [
    joined(3),
    stepped(4, ["peer-0", "peer-1"], admitted=("peer-1",)),
    Membership("LOST", "peer-1", 3, "reset", 0.0),
    Fenced(5, "silent"),
    finished(),
    Failed("Timeout: op 3.1"),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_survives_the_pipe(message: Message) -> None:
    line = encode(message)

    assert "\n" not in line
    assert decode(line) == message


@pytest.mark.parametrize(
    "line", ["", "hello", "3", "[]", "null", '{"kind": "Dance"}', '{"kind": "Failed", "x": 1}']
)
def test_output_that_is_no_message_is_told_apart(line: str) -> None:
    assert decode(line) is None


def test_a_peer_goes_from_starting_to_done() -> None:
    story = Story(steps=2, started_ns=0)
    story.spawned("peer-0", 7, 0, late=False)
    states = [story.peers["peer-0"].state]

    for message in (joined(0), stepped(0, ["peer-0"]), stepped(1, ["peer-0"]), finished()):
        story.on("peer-0", message, 1)
        states.append(story.peers["peer-0"].state)
    story.exited("peer-0", 0, 2)

    training = PeerState.TRAINING
    assert states == [PeerState.STARTING, training, training, training, PeerState.DONE]
    assert story.is_over()
    assert story.lead_step == 2


def test_a_stopped_peer_that_was_fenced_is_a_new_incarnation_when_it_returns() -> None:
    peer = good_story().peers["peer-1"]

    assert len(peer.incarnations) == 2
    assert peer.incarnations[0].fenced is not None
    assert peer.state is PeerState.DONE


def test_the_log_says_who_was_lost_and_how_long_it_took() -> None:
    texts = [f"{line.who} {line.text}" for line in good_story().log]

    for words in (
        "step 3 is complete without peer-0's part, attempt 1, held up 12 ms",
        "step 8 is complete without peer-1's part, attempt 1, held up 1100 ms",
    ):
        assert sum(words in text for text in texts) == 1


def test_the_log_says_when_the_part_of_a_dead_peer_was_saved() -> None:
    story = Story(steps=2, started_ns=0)
    for name in ("peer-0", "peer-1"):
        story.spawned(name, 7, 0, late=False)
        story.on(name, joined(0), 0)
    story.killing("peer-0", 0, 4, 0)
    story.on("peer-0", Armed(0, 0), 0)

    story.on("peer-1", stepped(0, ["peer-0", "peer-1"]), 1)

    assert "with peer-0's part" in story.log[-1].text


def test_what_several_peers_report_is_told_once() -> None:
    story = Story(steps=2, started_ns=0)
    lost = Membership("LOST", "peer-2", 3, "connection reset", 0.0)

    for name in ("peer-0", "peer-1"):
        story.spawned(name, 7, 0, late=False)
        story.on(name, lost, 1)
    story.on("peer-0", dataclasses.replace(lost, epoch=4), 2)

    assert [line.who for line in story.log] == ["peer-2", "peer-2"]
    assert "connection reset" in story.log[0].text


def test_a_kill_that_was_not_ours_is_a_failure() -> None:
    story = Story(steps=2, started_ns=0)
    story.spawned("peer-0", 7, 0, late=False)

    story.exited("peer-0", -9, 1)

    assert story.peers["peer-0"].state is PeerState.FAILED
    assert "SIGKILL" in story.log[-1].text


def test_a_peer_that_ends_well_without_a_result_is_a_failure() -> None:
    story = Story(steps=2, started_ns=0)
    story.spawned("peer-0", 7, 0, late=False)

    story.exited("peer-0", 0, 1)

    assert story.peers["peer-0"].state is PeerState.FAILED


def test_statuses_are_told_in_words() -> None:
    assert describe_status(3) == "exit status 3"
    assert describe_status(-15) == "SIGTERM"
    assert describe_status(-200) == "signal 200"
