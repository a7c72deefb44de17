"""Was the run right? Pure: a story in, figures and problems out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from collect.cli.demo.messages import Stepped
from collect.cli.demo.story import NS_PER_S, Incarnation, Peer, PeerState, Story, describe_status

ACCURACY_MIN = 0.95
ACCURACY_DIFFERENCE_MAX = 0.01  # to the run in a single process


@dataclass(frozen=True, slots=True)
class Expected:
    """What the scenario did, and what the single process got."""

    accuracy: float
    killed: str | None
    stopped: str | None
    newcomer: str | None
    newcomer_started_ns: int | None


@dataclass(frozen=True, slots=True)
class Recovery:
    """How long one event took. Seconds; None where it does not apply, or never happened."""

    event: str  # kill, stop, return or join
    peer: str
    recovered_s: float | None
    held_s: float | None  # the longest that one operation or boundary of a survivor took
    meaning: str


@dataclass(frozen=True, slots=True)
class Result:
    """What one peer ended with."""

    peer: str
    accuracy: float
    digest: str
    steps: int
    incarnations: int
    parameters_difference: float


@dataclass(frozen=True, slots=True)
class Report:
    """The verdict."""

    results: list[Result]
    recoveries: list[Recovery]
    steps_lost: int
    steps: int
    duration_s: float
    single_process_accuracy: float
    problems: list[str]

    @property
    def is_good(self) -> bool:
        return not self.problems

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "is_good": self.is_good}


def evaluate(story: Story, expected: Expected, duration_s: float) -> Report:
    """Figures of a run that is over, and everything that is wrong with it."""
    results = [_result(peer) for peer in story.peers.values() if peer.finished is not None]
    recoveries = list(_recoveries(story, expected))
    lost = {peer.name: _steps_lost(peer, story.step_count) for peer in story.peers.values()}
    problems = [
        *_endings(story, expected),
        *(f"{name} lost {count} steps" for name, count in lost.items() if count),
        *_disagreements(story, results),
        *_inaccuracies(results, expected.accuracy),
        *(
            f"{recovery.event} of {recovery.peer}: the group did not recover from it"
            for recovery in recoveries
            if recovery.recovered_s is None
        ),
    ]
    return Report(
        results=results,
        recoveries=recoveries,
        steps_lost=sum(lost.values()),
        steps=story.step_count,
        duration_s=duration_s,
        single_process_accuracy=expected.accuracy,
        problems=problems,
    )


def _result(peer: Peer) -> Result:
    assert peer.finished is not None
    return Result(
        peer=peer.name,
        accuracy=peer.finished.accuracy,
        digest=peer.finished.digest,
        steps=len(peer.steps),
        incarnations=len(peer.incarnations),
        parameters_difference=peer.finished.parameters_difference,
    )


def _endings(story: Story, expected: Expected) -> Iterable[str]:
    for peer in story.peers.values():
        if peer.name == expected.killed:
            if peer.state is not PeerState.KILLED:
                yield f"{peer.name} should have been killed, but is {peer.state.value}"
        elif peer.failure is not None:
            yield f"{peer.name} failed: {peer.failure}"
        elif peer.exit_status is None:
            yield f"{peer.name} did not end"
        elif peer.exit_status != 0:
            yield f"{peer.name} ended with {describe_status(peer.exit_status)}"
        elif peer.finished is None:
            yield f"{peer.name} ended without a result"
    if expected.newcomer is not None and expected.newcomer not in story.peers:
        yield f"{expected.newcomer} was never started: training was over before"


def _steps_lost(peer: Peer, step_count: int) -> int:
    """Steps that a membership should have seen and did not, or saw twice.

    A membership that was neither killed nor fenced lasts to the end of the training.
    """
    return sum(
        _steps_lost_in(incarnation, step_count, to_the_end=_lasts(peer, incarnation))
        for incarnation in peer.incarnations
    )


def _lasts(peer: Peer, incarnation: Incarnation) -> bool:
    return incarnation.fenced is None and peer.state is PeerState.DONE


def _steps_lost_in(incarnation: Incarnation, step_count: int, *, to_the_end: bool) -> int:
    seen = Counter(each.step for each in incarnation.steps)
    first = incarnation.joined.step
    end = step_count if to_the_end else max(seen, default=first - 1) + 1
    missing = sum(step not in seen for step in range(first, end))
    surplus = sum(count - 1 for count in seen.values())
    return missing + surplus


def _disagreements(story: Story, results: list[Result]) -> Iterable[str]:
    digests = Counter(result.digest for result in results)
    if len(digests) > 1:
        yield "the peers' weights differ: " + ", ".join(
            f"{result.peer} {result.digest[:8]}" for result in results
        )
    losses: dict[int, float] = {}
    for peer in story.peers.values():
        for each in peer.steps:
            if losses.setdefault(each.step, each.loss) != each.loss:
                yield f"the loss of step {each.step} differs between peers"
                return


def _inaccuracies(results: list[Result], single_process: float) -> Iterable[str]:
    if not results:
        yield "no peer finished"
    for result in results:
        if result.accuracy < ACCURACY_MIN:
            yield f"{result.peer}: accuracy {result.accuracy:.4f} is below {ACCURACY_MIN}"
        if abs(result.accuracy - single_process) > ACCURACY_DIFFERENCE_MAX:
            yield (
                f"{result.peer}: accuracy {result.accuracy:.4f} is not that of a single process, "
                f"{single_process:.4f}"
            )


def _recoveries(story: Story, expected: Expected) -> Iterable[Recovery]:
    if expected.killed is not None and expected.killed in story.peers:
        yield _kill(story, story.peers[expected.killed])
    if expected.stopped is not None and expected.stopped in story.peers:
        yield _stop(story, story.peers[expected.stopped])
        yield _return(story, story.peers[expected.stopped])
    if expected.newcomer is not None and expected.newcomer in story.peers:
        newcomer = story.peers[expected.newcomer]
        yield _join(story, newcomer, "join", expected.newcomer_started_ns, "start")


def _kill(story: Story, victim: Peer) -> Recovery:
    """The clock starts just before the victim submits its last all-reduce, so the figure is never
    too small."""
    meaning = "SIGKILL … the last survivor has that sum"
    armed = victim.armed
    if armed is None:
        return Recovery("kill", victim.name, None, None, meaning)
    operations = [
        step.operations[0]
        for peer in story.peers.values()
        if peer is not victim
        for step in peer.steps
        if step.step == armed.step
    ]
    if not operations:
        return Recovery("kill", victim.name, None, None, meaning)
    recovered_ns = max(each.completed_ns for each in operations) - armed.at_ns
    held_ns = max(each.duration_ns for each in operations)
    return Recovery("kill", victim.name, recovered_ns / NS_PER_S, held_ns / NS_PER_S, meaning)


def _stop(story: Story, victim: Peer) -> Recovery:
    meaning = "SIGSTOP … the last survivor has a sum without it"
    recovered_ns, held_ns = 0, 0
    for peer in story.peers.values():
        if peer is victim or not peer.steps or victim.stopped_ns is None:
            continue
        first = _first_without(victim.name, peer.steps, victim.stopped_ns)
        if first is not None:
            recovered_ns = max(recovered_ns, first[0] - victim.stopped_ns)
            held_ns = max(held_ns, first[1])
    if not recovered_ns:
        return Recovery("stop", victim.name, None, None, meaning)
    return Recovery("stop", victim.name, recovered_ns / NS_PER_S, held_ns / NS_PER_S, meaning)


def _first_without(victim: str, steps: list[Stepped], since_ns: int) -> tuple[int, int] | None:
    """When the first all-reduce without `victim` completed, and the longest wait until then."""
    longest_ns = 0
    for step in steps:
        if step.operations[-1].completed_ns < since_ns:
            continue
        longest_ns = max(longest_ns, step.admit_ns)
        for operation in step.operations:
            longest_ns = max(longest_ns, operation.duration_ns)
            if victim not in operation.participants:
                return operation.completed_ns, longest_ns
    return None


def _return(story: Story, victim: Peer) -> Recovery:
    return _join(story, victim, "return", victim.continued_ns, "SIGCONT")


def _join(story: Story, newcomer: Peer, event: str, since_ns: int | None, since: str) -> Recovery:
    """`held_s` is the longest that the boundary took on those who were in already: the newcomer
    gets its state there."""
    meaning = f"{since} … a member with the newest state"
    index = 1 if event == "return" else 0
    if since_ns is None or len(newcomer.incarnations) <= index:
        return Recovery(event, newcomer.name, None, None, meaning)
    joined = newcomer.incarnations[index].joined
    held_ns = max(
        (
            step.admit_ns
            for peer in story.peers.values()
            if peer is not newcomer
            for step in peer.steps
            if newcomer.name in step.admitted and step.step == joined.step
        ),
        default=None,
    )
    return Recovery(
        event,
        newcomer.name,
        (joined.at_ns - since_ns) / NS_PER_S,
        None if held_ns is None else held_ns / NS_PER_S,
        meaning,
    )
