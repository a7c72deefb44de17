"""A step uses exactly the global batch, however many members share it, and whoever is lost."""

import threading
from collections.abc import Callable

import numpy as np
import pytest

from collect.cli.demo import model
from collect.cli.demo.data import Digits, Floats, load_digits
from collect.cli.demo.train import Alone, Trainer, train_alone

SEED, BATCH = 0, 50


@pytest.fixture(scope="module")
def digits() -> Digits:
    return load_digits(SEED)


class World:
    """All members in this process, each in a thread: their all-reduces meet at a barrier.

    `on_round` may change ranks, sizes and who takes part before the sum is made: (round) -> ranks
    that contribute to it.
    """

    def __init__(self, size: int, contributors: Callable[[int], list[int]] | None = None) -> None:
        self.size = size
        self.contributors = contributors or (lambda _round: list(range(size)))
        self.parts: dict[int, Floats] = {}
        self.total: Floats = np.zeros(0)
        self.round = 0
        self.barrier = threading.Barrier(size, action=self._sum)

    def _sum(self) -> None:
        taken = self.contributors(self.round)
        self.total = np.sum([self.parts[rank] for rank in taken], axis=0)
        self.round += 1

    def run(self, trainers: list[Trainer], views: list[tuple[int, int]] | None = None) -> None:
        views = views or [(rank, self.size) for rank in range(self.size)]
        threads = [
            threading.Thread(target=trainer.advance, args=(Member(self, index, *view),))
            for index, (trainer, view) in enumerate(zip(trainers, views, strict=True))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=20)


class Member:
    """One of them. Its view may be wrong in the first round and is right from the second on."""

    def __init__(self, world: World, index: int, rank: int, size: int) -> None:
        self._world = world
        self._index = index
        self.rank, self.size = rank, size

    def all_reduce(self, buffer: Floats) -> Floats:
        self._world.parts[self._index] = buffer
        self._world.barrier.wait(timeout=20)
        self.rank, self.size = self._index, self._world.size
        return self._world.total.copy()


def trainers(digits: Digits, count: int) -> list[Trainer]:
    return [Trainer(digits, seed=SEED, batch_size=BATCH) for _ in range(count)]


def distance(one: Trainer, other: Trainer) -> float:
    return float(np.abs(one.state["parameters"] - other.state["parameters"]).max())


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 64])
def test_any_number_of_members_makes_the_step_of_one(digits: Digits, size: int) -> None:
    many = trainers(digits, size)

    World(size).run(many)

    assert all(trainer.step == 1 for trainer in many)
    assert len({trainer.digest() for trainer in many}) == 1
    assert distance(many[0], train_alone(digits, seed=SEED, batch_size=BATCH, steps=1)) < 1e-12


@pytest.mark.parametrize("lost", [0, 2])
def test_images_of_a_member_that_dies_are_shared_again(digits: Digits, lost: int) -> None:
    survivors = [rank for rank in range(4) if rank != lost]
    world = World(4, contributors=lambda count: survivors if count == 0 else [0, 1, 2, 3])
    many = trainers(digits, 4)

    world.run(many)

    assert world.round == 2
    assert distance(many[1], train_alone(digits, seed=SEED, batch_size=BATCH, steps=1)) < 1e-12


def test_images_that_two_members_took_are_counted_once(digits: Digits) -> None:
    """Members that split by the views before and after a death overlap."""
    world = World(3)
    many = trainers(digits, 3)

    world.run(many, views=[(0, 4), (1, 3), (2, 3)])

    assert world.round == 2
    assert distance(many[0], train_alone(digits, seed=SEED, batch_size=BATCH, steps=1)) < 1e-12


def test_the_sum_of_split_gradients_is_the_gradient_of_the_whole(digits: Digits) -> None:
    parameters = model.initial_parameters(SEED)
    images, labels = digits.train_images[:100], digits.train_labels[:100]
    ones = np.ones(100)
    whole_loss, whole = model.loss_and_gradient(parameters, images, labels, ones)

    parts = [
        model.loss_and_gradient(parameters, images[rank::7], labels[rank::7], ones[rank::7])
        for rank in (3, 0, 6, 2, 5, 1, 4)
    ]

    assert np.abs(sum(gradient for _, gradient in parts) - whole).max() < 1e-12
    assert sum(loss for loss, _ in parts) == pytest.approx(whole_loss, rel=1e-12)


def test_a_newcomer_with_the_state_goes_on_like_the_others(digits: Digits) -> None:
    veteran, newcomer = trainers(digits, 2)
    for _ in range(5):
        veteran.advance(Alone())

    for name, array in newcomer.state.items():
        array[...] = veteran.state[name]
    for trainer in (veteran, newcomer):
        trainer.advance(Alone())

    assert newcomer.step == veteran.step == 6
    assert newcomer.digest() == veteran.digest()


def test_endless_losses_end_with_an_error_and_an_untouched_state(digits: Digits) -> None:
    class Void(Alone):
        def all_reduce(self, buffer: Floats) -> Floats:
            return np.zeros_like(buffer)

    (trainer,) = trainers(digits, 1)
    before = trainer.digest()

    with pytest.raises(RuntimeError, match="in a row"):
        trainer.advance(Void())

    assert trainer.digest() == before
    assert trainer.step == 0
