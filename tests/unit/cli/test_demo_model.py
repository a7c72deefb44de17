"""The classifier: its gradient is right, sums over shares are the whole, and it learns."""

import numpy as np
import pytest

from collect.cli.demo import model
from collect.cli.demo.data import Digits, load_digits
from collect.cli.demo.train import train_alone


@pytest.fixture(scope="module")
def digits() -> Digits:
    return load_digits(seed=0)


def test_the_gradient_is_the_slope_of_the_loss(digits: Digits) -> None:
    random = np.random.default_rng(1)
    parameters = model.initial_parameters(seed=1)
    images, labels = digits.train_images[:20], digits.train_labels[:20]
    weights = random.uniform(0.5, 2.0, 20)
    _, gradient = model.loss_and_gradient(parameters, images, labels, weights)

    for index in random.choice(model.PARAMETER_COUNT, 40, replace=False):
        step = np.zeros(model.PARAMETER_COUNT)
        step[index] = 1e-6
        above, _ = model.loss_and_gradient(parameters + step, images, labels, weights)
        below, _ = model.loss_and_gradient(parameters - step, images, labels, weights)
        assert gradient[index] == pytest.approx((above - below) / 2e-6, rel=1e-4, abs=1e-6)


def test_no_images_give_no_gradient(digits: Digits) -> None:
    loss, gradient = model.loss_and_gradient(
        model.initial_parameters(seed=1),
        digits.train_images[:0],
        digits.train_labels[:0],
        np.zeros(0),
    )

    assert loss == 0
    assert not gradient.any()


def test_a_negative_weight_takes_an_image_back(digits: Digits) -> None:
    parameters = model.initial_parameters(seed=1)
    images, labels = digits.train_images[:2], digits.train_labels[:2]
    twice, _ = model.loss_and_gradient(parameters, images, labels, np.array([2.0, 1.0]))
    back, _ = model.loss_and_gradient(parameters, images, labels, np.array([-1.0, 0.0]))
    once, _ = model.loss_and_gradient(parameters, images, labels, np.array([1.0, 1.0]))

    assert twice + back == pytest.approx(once)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_single_process_learns_to_read_digits(seed: int) -> None:
    trainer = train_alone(load_digits(seed), seed=seed, batch_size=128, steps=360)

    assert trainer.accuracy() >= 0.96


def test_the_same_seed_gives_the_same_bytes(digits: Digits) -> None:
    first = train_alone(digits, seed=3, batch_size=64, steps=5)
    second = train_alone(digits, seed=3, batch_size=64, steps=5)

    assert first.digest() == second.digest()
    assert first.digest() != train_alone(digits, seed=4, batch_size=64, steps=5).digest()
