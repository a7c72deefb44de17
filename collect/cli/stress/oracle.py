"""Knows what must have happened: checks everything that the peers tell against one history.

An operation is *settled* when every living member has told it. Then all records of it must be
equal, but for the last record of a peer that was expelled: docs/failure-model.md allows it to be
one operation ahead. The bytes are computed here anew, from the participants that were named. An
operation with a root may fail, on all members alike, and only when somebody was lost.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from collect.cli.stress import workload
from collect.errors import MembersChanged

Key = tuple[int, int]  # step, index in the step
CHAINS_KEPT = 400  # steps that a newcomer may be late in telling where it entered
SAME_FIELDS = ("op", "epoch", "participants", "failed", "digest", "chain")

Told = dict[str, Any]


class Inexplicable(Exception):
    """The history contradicts what is promised."""


@dataclass
class Teller:
    """A peer, as far as its records go.

    last: its latest record.
    is_expelled: it was killed or stopped, so its last record may differ from the history.
    is_over: it tells nothing more.
    """

    name: str
    last: Key | None = None
    is_expelled: bool = False
    is_over: bool = False


@dataclass
class Oracle:
    seed: int
    tellers: dict[str, Teller] = field(default_factory=dict)
    op_count: int = 0  # settled
    rerun_count: int = 0  # of those: took more than one attempt on some member
    failed_count: int = 0  # of those: failed alike on all members
    _records: dict[Key, dict[str, Told]] = field(default_factory=dict)
    _next: Key = (0, 0)  # to be settled
    _chain: int = 0
    _chains: dict[int, int] = field(default_factory=lambda: {0: 0})  # by step, at its beginning
    _admissions: list[Told] = field(default_factory=list)
    _previous: Told | None = None  # the last that succeeded
    _last: Told | None = None

    # ---- what is told --------------------------------------------------------------------

    def expelled(self, name: str) -> None:
        """From here on the peer's last record proves nothing."""
        if name in self.tellers:
            self.tellers[name].is_expelled = True

    def is_over(self, name: str) -> None:
        """The peer has died or left."""
        if name in self.tellers:
            self.tellers[name].is_over = True

    def take(self, told: Told) -> None:
        """What a member tells, in its order."""
        name = told["name"]
        teller = self.tellers.setdefault(name, Teller(name))
        if told["what"] == "admitted":
            self._take_admission(teller, told)
        elif told["what"] == "op":
            self._take_op(teller, told)

    def _take_admission(self, teller: Teller, told: Told) -> None:
        if teller.last is None:
            teller.last = (told["step"], -1)
        elif told["received"]:
            raise Inexplicable(f"the state of {teller.name} was overwritten again: {told}")
        elif told["step"] != teller.last[0] + 1:
            raise Inexplicable(f"{teller.name} was at {teller.last} and admits in {told}")
        self._admissions.append(told)

    def _take_op(self, teller: Teller, told: Told) -> None:
        key = (told["step"], told["index"])
        if teller.last is None:
            raise Inexplicable(f"{teller.name} has not entered, but tells {told}")
        step, index = teller.last
        is_same_step = index + 1 < workload.op_count(self.seed, step)
        want = (step, index + 1) if is_same_step or index < 0 else (step + 1, 0)
        if key != want:
            raise Inexplicable(f"{teller.name} must tell {want} after {teller.last}, not {told}")
        if not told["failed"] and teller.name not in told["participants"]:
            raise Inexplicable(f"{teller.name} was told of an operation without it: {told}")
        if key < self._next and not teller.is_expelled:
            raise Inexplicable(f"{teller.name} tells {told} when everybody is past it")
        teller.last = key
        self._records.setdefault(key, {})[teller.name] = told

    # ---- the history ---------------------------------------------------------------------

    def settle(self) -> None:
        """Checks everything that all living members have told."""
        while self._is_settled(self._next):
            self._settle(self._next)
        for told in [each for each in self._admissions if each["step"] in self._chains]:
            self._admissions.remove(told)
            if told["chain"] != self._chains[told["step"]]:
                raise Inexplicable(f"{told['name']} entered with another state: {told}")

    def _is_settled(self, key: Key) -> bool:
        living = [t for t in self.tellers.values() if not t.is_over and t.last is not None]
        return bool(
            self._records.get(key)
            and all(teller.last is not None and teller.last >= key for teller in living)
            and any(self._counts(teller, key) for teller in self.tellers.values())
        )

    def _counts(self, teller: Teller, key: Key) -> bool:
        """Whether the peer's record of this operation is beyond doubt."""
        if teller.name not in self._records[key]:
            return False
        return not teller.is_expelled or teller.last != key

    def _settle(self, key: Key) -> None:
        records = self._records.pop(key)
        certain = {}
        for name, told in records.items():
            teller = self.tellers[name]
            if not teller.is_expelled or teller.last != key:
                certain[name] = told
        first = next(iter(certain.values()))
        for told in certain.values():
            # Members that meet a loss in different views name different roots: then it fails.
            names = SAME_FIELDS if first["failed"] else (*SAME_FIELDS, "root")
            if any(told[name] != first[name] for name in names):
                raise Inexplicable(f"two histories of operation {key}:\n{first}\n{told}")
        self._check_number(first)
        if first["failed"]:
            self._check_failure(key, first)
        else:
            self._check_participants(key, first, certain)
            self._check_epoch(first)
            self._check_bytes(key, first)
            self._previous = first
        self.op_count += 1
        self.rerun_count += any(told["attempts"] > 1 for told in certain.values())
        self._last = first
        step, index = key
        if index + 1 < workload.op_count(self.seed, step):
            self._next = (step, index + 1)
        else:
            self._next = (step + 1, 0)
            self._chains[step + 1] = self._chain
            self._chains.pop(step - CHAINS_KEPT, None)

    def _check_participants(self, key: Key, told: Told, records: dict[str, Told]) -> None:
        names = told["participants"]
        if len(set(names)) != len(names):
            raise Inexplicable(f"a participant twice: {told}")
        if missing := set(records) - set(names):
            raise Inexplicable(f"{missing} completed {key} without taking part: {told}")

    def _check_failure(self, key: Key, told: Told) -> None:
        """Only who names a root depends on one member; what fails without reason fails again."""
        what = workload.case(self.seed, *key)
        if what.collective != workload.BROADCAST or told["failed"] != MembersChanged.__name__:
            raise Inexplicable(f"{what} failed: {told}")
        self.failed_count += 1
        self._chain = workload.chained(self._chain, told["failed"], [])
        if told["chain"] != self._chain:
            raise Inexplicable(f"failed, but with another state ({self._chain}): {told}")

    def _check_epoch(self, told: Told) -> None:
        """Epochs only go on, and the members are the epoch's."""
        previous = self._previous
        if previous is None:
            return
        if self._last is not previous and told["epoch"] == previous["epoch"]:
            raise Inexplicable(f"failed though nobody was lost:\n{self._last}\n{told}")
        if told["epoch"] < previous["epoch"]:
            raise Inexplicable(f"back to an older epoch:\n{previous}\n{told}")
        is_same_view = told["participants"] == previous["participants"]
        if told["epoch"] == previous["epoch"] and not is_same_view:
            raise Inexplicable(f"one epoch with different participants:\n{previous}\n{told}")

    def _check_number(self, told: Told) -> None:
        """Numbers only go on; in a step, one by one."""
        previous = self._last
        if previous is None:
            return
        base, number = (int(part) for part in told["op"].split("."))
        last_base, last_number = (int(part) for part in previous["op"].split("."))
        if told["step"] == previous["step"]:
            if (base, number) != (last_base, last_number + 1):
                raise Inexplicable(f"an operation between two of a step:\n{previous}\n{told}")
        elif (base, number) <= (last_base, last_number):
            raise Inexplicable(f"the numbers do not grow:\n{previous}\n{told}")

    def _check_bytes(self, key: Key, told: Told) -> None:
        what = workload.case(self.seed, *key)
        names = told["participants"]
        if what.collective == workload.BROADCAST and told["root"] not in names:
            raise Inexplicable(f"the array of a root that took no part: {told}")
        want = workload.digest(workload.expected(names, *key, what, told["root"]))
        if told["digest"] != want:
            raise Inexplicable(f"wrong bytes: {what} must hash to {want}: {told}")
        self._chain = workload.chained(self._chain, want, names)
        if told["chain"] != self._chain:
            raise Inexplicable(f"right bytes, but another state ({self._chain}): {told}")
