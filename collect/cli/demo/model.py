"""The classifier: one hidden layer, softmax, SGD with momentum. NumPy only.

All parameters live in one flat vector, so a gradient is one vector too and travels in one
all-reduce. Gradients are *sums* over images, each image with a weight: sums of shares add up to the
sum over the whole batch, whoever computed which share.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from collect.cli.demo.data import Floats, Integers

INPUT_COUNT, HIDDEN_COUNT, CLASS_COUNT = 64, 128, 10
_SHAPES = (
    (INPUT_COUNT, HIDDEN_COUNT),
    (HIDDEN_COUNT,),
    (HIDDEN_COUNT, CLASS_COUNT),
    (CLASS_COUNT,),
)
_SIZES = tuple(int(np.prod(shape)) for shape in _SHAPES)
PARAMETER_COUNT = sum(_SIZES)

LEARNING_RATE = 0.1
MOMENTUM = 0.9


@dataclass(frozen=True, slots=True)
class Layers:
    """Views into a flat vector of PARAMETER_COUNT numbers."""

    hidden_weights: Floats
    hidden_bias: Floats
    output_weights: Floats
    output_bias: Floats

    @classmethod
    def of(cls, vector: Floats) -> Layers:
        assert vector.shape == (PARAMETER_COUNT,)
        parts = np.split(vector, np.cumsum(_SIZES)[:-1])
        return cls(*(part.reshape(shape) for part, shape in zip(parts, _SHAPES, strict=True)))


def initial_parameters(seed: int) -> Floats:
    """He initialisation; biases zero. Shape (PARAMETER_COUNT,)."""
    random = np.random.default_rng(seed)
    parameters = np.zeros(PARAMETER_COUNT)
    layers = Layers.of(parameters)
    for weights in (layers.hidden_weights, layers.output_weights):
        weights[...] = random.normal(0.0, np.sqrt(2.0 / weights.shape[0]), weights.shape)
    return parameters


def loss_and_gradient(
    parameters: Floats, images: Floats, labels: Integers, weights: Floats
) -> tuple[float, Floats]:
    """Weighted sums, over these images, of the cross-entropy and of its gradient.

    images (n, 64), labels (n,), weights (n,); the gradient has shape (PARAMETER_COUNT,). No
    images: zeros.
    """
    layers = Layers.of(parameters)
    hidden, logits = _forward(layers, images)
    logits -= logits.max(axis=1, keepdims=True, initial=-np.inf)
    probabilities = np.exp(logits)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    rows = np.arange(len(labels))
    loss = -float(weights @ np.log(probabilities[rows, labels]))

    to_output = probabilities
    to_output[rows, labels] -= 1.0
    to_output *= weights[:, None]
    to_hidden = (to_output @ layers.output_weights.T) * (hidden > 0)
    gradient = np.empty(PARAMETER_COUNT)
    gradients = Layers.of(gradient)
    gradients.hidden_weights[...] = images.T @ to_hidden
    gradients.hidden_bias[...] = to_hidden.sum(axis=0)
    gradients.output_weights[...] = hidden.T @ to_output
    gradients.output_bias[...] = to_output.sum(axis=0)
    return loss, gradient


def descend(parameters: Floats, velocity: Floats, mean_gradient: Floats) -> None:
    """One step of SGD with momentum, in place."""
    velocity *= MOMENTUM
    velocity += mean_gradient
    parameters -= LEARNING_RATE * velocity


def accuracy(parameters: Floats, images: Floats, labels: Integers) -> float:
    """Share of the images whose label is predicted."""
    _, logits = _forward(Layers.of(parameters), images)
    return float((logits.argmax(axis=1) == labels).mean())


def _forward(layers: Layers, images: Floats) -> tuple[Floats, Floats]:
    hidden = np.maximum(images @ layers.hidden_weights + layers.hidden_bias, 0.0)
    return hidden, hidden @ layers.output_weights + layers.output_bias
