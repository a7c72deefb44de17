"""The data: handwritten digits, and which of them each member looks at in each step.

The global batch of a step follows from the seed and the step alone. Members share it by rank, so
any number of members looks at the same images.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from collect.cli.usage import UsageError

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

HELD_OUT_COUNT = 360  # of 1797: a fifth
PIXEL_MAX = 16.0


@dataclass(frozen=True, slots=True)
class Digits:
    """Images of 8 x 8 pixels in 0…1, shape (n, 64), and their labels 0…9, shape (n,)."""

    train_images: Floats
    train_labels: Integers
    held_out_images: Floats
    held_out_labels: Integers

    def save(self, path: Path) -> None:
        """Write everything to one file, so that a new peer starts without a second to load."""
        np.savez(
            path,
            train_images=self.train_images,
            train_labels=self.train_labels,
            held_out_images=self.held_out_images,
            held_out_labels=self.held_out_labels,
        )

    @classmethod
    def load(cls, path: Path) -> Digits:
        with np.load(path, allow_pickle=False) as arrays:
            return cls(**{name: arrays[name] for name in arrays.files})


def load_digits(seed: int) -> Digits:
    """scikit-learn's packaged digits, split into training and held-out images by the seed."""
    try:
        from sklearn import datasets  # noqa: PLC0415  an extra; and it takes seconds to import
    except ImportError:
        raise UsageError(
            "collect demo: needs scikit-learn for its data set; pip install 'collect[demo]'"
        ) from None
    digits = datasets.load_digits()
    images = np.asarray(digits.data, dtype=np.float64) / PIXEL_MAX
    labels = np.asarray(digits.target, dtype=np.int64)
    order = np.random.default_rng(seed).permutation(len(images))
    held_out, train = order[:HELD_OUT_COUNT], order[HELD_OUT_COUNT:]
    return Digits(images[train], labels[train], images[held_out], labels[held_out])


def global_batch(seed: int, step: int, image_count: int, batch_size: int) -> Integers:
    """Indices of the images of a step. Each pass over the data is a new permutation; the
    `image_count` mod `batch_size` images that do not fill a batch wait for the next pass."""
    steps_per_pass = image_count // batch_size
    assert steps_per_pass > 0
    pass_index, batch_index = divmod(step, steps_per_pass)
    order = np.random.default_rng([seed, pass_index]).permutation(image_count)
    return order[batch_index * batch_size : (batch_index + 1) * batch_size].astype(np.int64)


def share(positions: Integers, rank: int, size: int) -> Integers:
    """What `rank` of `size` takes of these positions: every size-th. The shares of all ranks
    cover all positions once, and differ in length by at most one."""
    return positions[rank::size]
