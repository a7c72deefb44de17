"""Batches follow from seed and step; shares cover a batch for any number of members."""

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from collect.cli.demo.data import HELD_OUT_COUNT, Digits, global_batch, load_digits, share


@given(count=st.integers(0, 200), size=st.integers(1, 70))
def test_shares_cover_all_positions_once(count: int, size: int) -> None:
    positions = np.random.default_rng(count).permutation(1000)[:count].astype(np.int64)

    shares = [share(positions, rank, size) for rank in range(size)]

    assert sorted(np.concatenate(shares)) == sorted(positions)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@given(seed=st.integers(0, 2**32), step=st.integers(0, 10_000))
def test_a_batch_is_a_function_of_seed_and_step(seed: int, step: int) -> None:
    batch = global_batch(seed, step, image_count=100, batch_size=16)

    assert np.array_equal(batch, global_batch(seed, step, image_count=100, batch_size=16))
    assert len(set(batch)) == 16
    assert set(batch) <= set(range(100))


def test_a_pass_shows_no_image_twice() -> None:
    steps = range(7, 14)  # the second pass of 7 batches of 14 out of 100

    shown = np.concatenate([global_batch(5, step, 100, 14) for step in steps])

    assert len(set(shown)) == len(shown) == 98


def test_no_held_out_image_is_trained_on() -> None:
    digits = load_digits(seed=0)

    assert len(digits.held_out_labels) == HELD_OUT_COUNT
    assert len(digits.train_labels) + HELD_OUT_COUNT == 1797
    assert set(digits.train_labels) == set(range(10))
    assert 0 <= digits.train_images.min() < digits.train_images.max() == 1.0


def test_what_the_launcher_saves_a_peer_loads(tmp_path: Path) -> None:
    digits = load_digits(seed=7)
    digits.save(tmp_path / "digits.npz")

    loaded = Digits.load(tmp_path / "digits.npz")

    assert np.array_equal(loaded.train_images, digits.train_images)
    assert np.array_equal(loaded.held_out_labels, digits.held_out_labels)
