"""What a run has shown."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from collect.cli.stress.churn import Progress
from collect.cli.stress.recovery import PERCENTILES, Summary


@dataclass(frozen=True)
class Verdict:
    """reason: what was found wrong; "": nothing. Times are in seconds."""

    reason: str
    replay: str  # the command that plays the same faults again
    logs: str  # where the processes' logs are; "": they were not kept
    seed: int
    duration_s: float
    operations: int  # checked
    reruns: int
    failures: int
    usual_s: float
    longest_s: float
    faults: dict[str, int]
    recoveries: tuple[Summary, ...]

    @property
    def is_good(self) -> bool:
        return not self.reason

    @property
    def fault_count(self) -> int:
        return sum(self.faults.values())

    def as_json(self) -> dict[str, Any]:
        """For a report file."""
        told = asdict(self)
        told["is_good"] = self.is_good
        told["recoveries"] = {each.kind: _as_json(each) for each in self.recoveries}
        return told


def _as_json(summary: Summary) -> dict[str, float]:
    names = [f"p{percent}_s" for percent in PERCENTILES]
    times = dict(zip(names, summary.percentiles_s, strict=True))
    return {"count": summary.count, **times, "max_s": summary.max_s}


def judge(progress: Progress, reason: str, replay: str, logs: str) -> Verdict:
    """The verdict on a run that is over."""
    world = progress.world
    return Verdict(
        reason=reason,
        replay=replay,
        logs=logs,
        seed=world.setting.seed,
        duration_s=progress.elapsed_s,
        operations=world.oracle.op_count,
        reruns=world.oracle.rerun_count,
        failures=world.oracle.failed_count,
        usual_s=world.recoveries.usual(),
        longest_s=world.recoveries.longest_s,
        faults=dict(sorted(progress.counts.items())),
        recoveries=tuple(world.recoveries.summaries()),
    )
