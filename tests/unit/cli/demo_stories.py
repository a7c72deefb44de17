"""Stories of runs that went well, for tests to spoil."""

import signal

from collect.cli.demo.messages import Armed, Fenced, Finished, Joined, Operation, Stepped
from collect.cli.demo.report import Expected
from collect.cli.demo.story import NS_PER_S, Story

MS = 1_000_000
STEP_NS = 50 * MS
STEPS = 20
KILL_STEP, STOP_STEP, BACK_STEP, JOIN_STEP = 3, 8, 14, 16
DIGEST = "0123456789abcdef0123456789abcdef"
EXPECTED = Expected(
    accuracy=0.97,
    killed="peer-0",
    stopped="peer-1",
    newcomer="peer-4",
    newcomer_started_ns=(JOIN_STEP - 2) * STEP_NS,
)


def operation(
    step: int, participants: list[str], *, duration_ns: int = MS, attempts: int = 1
) -> Operation:
    """An all-reduce that is submitted at a step's begin."""
    begun_ns = step * STEP_NS
    return Operation(f"1.{step}", attempts, participants, begun_ns, begun_ns + duration_ns)


def stepped(
    step: int,
    participants: list[str],
    *,
    admitted: tuple[str, ...] = (),
    admit_ns: int = MS // 10,
    duration_ns: int = MS,
    loss: float | None = None,
) -> Stepped:
    return Stepped(
        step=step,
        loss=1 / (step + 1) if loss is None else loss,
        rank=0,
        size=len(participants),
        epoch=1,
        admitted=list(admitted),
        admit_ns=admit_ns,
        operations=[operation(step, participants, duration_ns=duration_ns)],
    )


def members_at(step: int) -> list[str]:
    members = ["peer-2", "peer-3"]
    if step < STOP_STEP or step >= BACK_STEP:
        members.append("peer-1")
    if step < KILL_STEP:
        members.append("peer-0")
    if step >= JOIN_STEP:
        members.append("peer-4")
    return sorted(members)


def joined(step: int) -> Joined:
    return Joined(at_ns=step * STEP_NS, rank=0, size=4, epoch=1, step=step)


def finished(*, accuracy: float = 0.97, digest: str = DIGEST) -> Finished:
    return Finished(STEPS, accuracy, digest, 1e-14)


def good_story() -> Story:
    """Four peers; peer-0 is killed, peer-1 is stopped and comes back, peer-4 joins."""
    story = Story(steps=STEPS, started_ns=0)
    for name in ("peer-0", "peer-1", "peer-2", "peer-3"):
        story.spawned(name, 100, 0, late=False)
        story.on(name, joined(0), 0)
    for step in range(STEPS):
        now_ns = step * STEP_NS
        _faults_before(story, step, now_ns)
        for name in members_at(step):
            story.on(name, _step_of(step), now_ns)
    for name in ("peer-1", "peer-2", "peer-3", "peer-4"):
        story.on(name, finished(), STEPS * STEP_NS)
        story.exited(name, 0, STEPS * STEP_NS)
    return story


def _step_of(step: int) -> Stepped:
    """A death takes 12 ms, a silence 1.1 s, and a newcomer holds the others up for 2 ms."""
    admitted = {BACK_STEP: ("peer-1",), JOIN_STEP: ("peer-4",)}.get(step, ())
    return stepped(
        step,
        members_at(step),
        admitted=admitted,
        admit_ns=2 * MS if admitted else MS // 10,
        duration_ns={KILL_STEP: 12 * MS, STOP_STEP: 1100 * MS}.get(step, MS),
    )


def _faults_before(story: Story, step: int, now_ns: int) -> None:
    if step == KILL_STEP:
        story.killing("peer-0", step, 2, now_ns)
        story.on("peer-0", Armed(now_ns, step), now_ns)
        story.exited("peer-0", -signal.SIGKILL, now_ns + 15 * MS)
    if step == STOP_STEP:
        story.stopped("peer-1", now_ns)
    if step == BACK_STEP:
        story.continued("peer-1", now_ns - STEP_NS)
        story.on("peer-1", Fenced(now_ns - 40 * MS, "silent for 1.0 s"), now_ns)
        story.on("peer-1", joined(step), now_ns)
    if step == JOIN_STEP:
        story.spawned("peer-4", 104, now_ns - 2 * STEP_NS, late=True)
        story.on("peer-4", joined(step), now_ns)


DURATION_S = STEPS * STEP_NS / NS_PER_S
