"""One step of data-parallel training that stays exact while members come and go.

Every member adds its share of the global batch to one all-reduce: gradient sum, loss sum, and one
count per image of the batch. When a member dies in the middle of it, the survivors' sum is
complete all the same, but lacks the images that the dead one had; the counts, equal bytes on every
member, say which. The members then share the missing images in one more all-reduce and go on. So
every step uses exactly the global batch, and a run with deaths and a run in a single process differ
only by the rounding of their sums.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import xxhash

from collect.cli.demo import model
from collect.cli.demo.data import Digits, Floats, Integers, global_batch, share

ROUNDS_MAX = 100  # members would have to be lost in as many all-reduces in a row


class Members(Protocol):
    """Those who train together, seen by one of them."""

    @property
    def rank(self) -> int: ...

    @property
    def size(self) -> int: ...

    def all_reduce(self, buffer: Floats) -> Floats:
        """The sum of everybody's buffer, the same bytes for all."""


class Alone:
    """A world of one: what a run in a single process uses."""

    rank, size = 0, 1

    def all_reduce(self, buffer: Floats) -> Floats:
        return buffer


@dataclass(frozen=True, slots=True)
class StepResult:
    """A completed step."""

    step: int
    loss: float  # mean over the global batch, before the update
    rounds: int  # all-reduces that it took: 1, and one more for each in which somebody was lost


class Trainer:
    """A classifier in training. `state` is all that a newcomer needs to go on from here."""

    def __init__(self, digits: Digits, *, seed: int, batch_size: int) -> None:
        self._digits = digits
        self._seed = seed
        self._batch_size = batch_size
        self._parameters = model.initial_parameters(seed)
        self._velocity = np.zeros(model.PARAMETER_COUNT)
        self._step = np.zeros(1, dtype=np.int64)

    @property
    def state(self) -> dict[str, npt.NDArray[Any]]:
        """The arrays themselves: writing to them changes the trainer."""
        return {"parameters": self._parameters, "velocity": self._velocity, "step": self._step}

    @property
    def step(self) -> int:
        """Steps completed so far."""
        return int(self._step[0])

    def advance(self, members: Members) -> StepResult:
        """Complete one step together with the other members."""
        step = self.step
        batch = global_batch(self._seed, step, len(self._digits.train_labels), self._batch_size)
        gradient = np.zeros(model.PARAMETER_COUNT)
        loss, missing, rounds = 0.0, np.ones(len(batch)), 0
        while missing.any():
            rounds += 1
            if rounds > ROUNDS_MAX:
                raise RuntimeError(f"step {step}: {ROUNDS_MAX} all-reduces in a row lost somebody")
            total = members.all_reduce(self._contribution(batch, missing, members))
            gradient += total[: model.PARAMETER_COUNT]
            loss += float(total[model.PARAMETER_COUNT])
            missing = missing - total[model.PARAMETER_COUNT + 1 :]
        model.descend(self._parameters, self._velocity, gradient / len(batch))
        self._step += 1
        return StepResult(step, loss / len(batch), rounds)

    def _contribution(self, batch: Integers, missing: Floats, members: Members) -> Floats:
        """Gradient sum, loss sum and counts of this member's share of what is missing.

        `missing` is 1 for an image nobody has counted yet, and -1 for one that was counted twice,
        which happens when members split a batch by the views before and after a death: its weight
        takes the surplus back.
        """
        mine = share(np.flatnonzero(missing), members.rank, members.size)
        images = batch[mine]
        weights = missing[mine]
        loss, gradient = model.loss_and_gradient(
            self._parameters,
            self._digits.train_images[images],
            self._digits.train_labels[images],
            weights,
        )
        counts = np.zeros(len(batch))
        counts[mine] = weights
        return np.concatenate((gradient, [loss], counts))

    def accuracy(self) -> float:
        """On the held-out images."""
        return model.accuracy(
            self._parameters, self._digits.held_out_images, self._digits.held_out_labels
        )

    def digest(self) -> str:
        """XXH3-128 of the parameters' bytes: equal on every peer that trained the same model."""
        return str(xxhash.xxh3_128_hexdigest(self._parameters.tobytes()))


def train_alone(digits: Digits, *, seed: int, batch_size: int, steps: int) -> Trainer:
    """The same global batches in one process: what the run with many peers is compared with."""
    trainer = Trainer(digits, seed=seed, batch_size=batch_size)
    alone = Alone()
    while trainer.step < steps:
        trainer.advance(alone)
    return trainer
