"""What Keras computes and how it stores weights, in numpy alone, for tests of the import of originals.

Layers are made and computed at once, on one image (rows, columns, channels) in float64, in Keras' own layout of
kernels; each gets the name that Keras would give it. The networks below call them as the released codes do.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import h5py
import numpy as np

EPSILON = 1e-3


class KerasInNumpy:
    """Makes layers with random weights, computes them, and keeps their names and arrays in the order of making.

    Args:
        seed: of the weights.
        made_before: how many layers of each kind the session had made for other networks.
    """

    def __init__(self, seed: int = 0, made_before: int = 0):
        self.layers: dict[str, dict[str, np.ndarray]] = {}
        self._rng = np.random.default_rng(seed)
        self._made: Counter[str] = Counter()
        self._before = made_before

    def conv(self, x: np.ndarray, filters: int, size: int, name: str = "") -> np.ndarray:
        """Conv2D with padding "same"."""
        weights = self._keep(name or self._automatic("conv2d"), self._kernel(size, x.shape[-1], filters))
        return convolve(x, weights["kernel"]) + weights["bias"]

    def conv_transpose(self, x: np.ndarray, filters: int) -> np.ndarray:
        """Conv2DTranspose of 2 x 2 with stride 2."""
        kernel = self._random((2, 2, filters, x.shape[-1]), x.shape[-1])
        weights = {"kernel": kernel, "bias": self._random((filters,), 4)}
        weights = self._keep(self._automatic("conv2d_transpose"), weights)
        out = np.einsum("hwc,yxoc->hywxo", x, weights["kernel"])
        return out.reshape(2 * x.shape[0], 2 * x.shape[1], filters) + weights["bias"]

    def norm(self, x: np.ndarray) -> np.ndarray:
        """BatchNormalization in inference."""
        width = (x.shape[-1],)
        variance = self._rng.uniform(0.01, 1.5, width).astype(np.float32)  # some so small that epsilon counts
        weights = {
            "gamma": (1 + self._random(width, 16)) * np.sqrt(variance),
            "beta": self._random(width, 4),
            "moving_mean": self._random(width, 4) * np.sqrt(variance),
            "moving_variance": variance,
        }
        kept = self._keep(self._automatic("batch_normalization"), weights)
        scale = kept["gamma"] / np.sqrt(kept["moving_variance"] + EPSILON)
        return (x - kept["moving_mean"]) * scale + kept["beta"]

    def dense(self, x: np.ndarray, units: int) -> np.ndarray:
        """Dense on a vector."""
        weights = {"kernel": self._random((len(x), units), len(x)), "bias": self._random((units,), 4)}
        weights = self._keep(self._automatic("dense"), weights)
        return x @ weights["kernel"] + weights["bias"]

    def conv_lstm_backwards(self, steps: list[np.ndarray], filters: int) -> np.ndarray:
        """ConvLSTM2D of 3 x 3 with ``go_backwards``: the last step is read first; the last state."""
        weights = self._kernel(3, steps[0].shape[-1], 4 * filters)
        weights["recurrent_kernel"] = self._random((3, 3, filters, 4 * filters), 9 * filters)
        weights = self._keep(self._automatic("conv_lst_m2d"), weights)
        hidden = cell = np.zeros((*steps[0].shape[:2], filters))
        for step in reversed(steps):
            gates = convolve(step, weights["kernel"]) + weights["bias"] + convolve(hidden, weights["recurrent_kernel"])
            enter, forget, new, leave = np.split(gates, 4, axis=-1)
            cell = hard_sigmoid(forget) * cell + hard_sigmoid(enter) * np.tanh(new)
            hidden = hard_sigmoid(leave) * np.tanh(cell)
        return hidden

    def _automatic(self, kind: str) -> str:
        number = self._made[kind] + self._before
        self._made[kind] += 1
        return f"{kind}_{number}" if number else kind

    def _kernel(self, size: int, inputs: int, outputs: int) -> dict[str, np.ndarray]:
        fan_in = size * size * inputs
        bias = self._random((outputs,), 16) + np.float32(0.3)  # so that few ReLUs are dead
        return {"kernel": self._random((size, size, inputs, outputs), fan_in), "bias": bias}

    def _random(self, shape: tuple[int, ...], fan_in: int) -> np.ndarray:
        return (self._rng.normal(size=shape) / np.sqrt(fan_in)).astype(np.float32)

    def _keep(self, name: str, weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.layers[name] = weights
        return {key: value.astype(np.float64) for key, value in weights.items()}


def convolve(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """(H, W, inputs) with a kernel (size, size, inputs, outputs), padding "same", size odd."""
    size, half = kernel.shape[0], kernel.shape[0] // 2
    rows, columns = x.shape[:2]
    padded = np.pad(x, ((half, half), (half, half), (0, 0)))
    shifts = ((row, column) for row in range(size) for column in range(size))
    return sum(padded[r : r + rows, c : c + columns] @ kernel[r, c] for r, c in shifts)


def pool(x: np.ndarray) -> np.ndarray:
    """MaxPooling2D of 2 x 2."""
    return x.reshape(x.shape[0] // 2, 2, x.shape[1] // 2, 2, -1).max(axis=(1, 3))


def elu(x: np.ndarray) -> np.ndarray:
    """ELU with alpha 1."""
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


def relu(x: np.ndarray) -> np.ndarray:
    """ReLU."""
    return np.maximum(x, 0)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """The logistic function."""
    return 1 / (1 + np.exp(-x))


def hard_sigmoid(x: np.ndarray) -> np.ndarray:
    """Keras 2's clip(0.2 x + 0.5, 0, 1)."""
    return np.clip(0.2 * x + 0.5, 0, 1)


def write_keras(
    path: Path, layers: dict[str, dict[str, np.ndarray]], whole_model: bool = False, shuffle: int | None = None
) -> Path:
    """An HDF5 file as Keras 2 writes it by ``save_weights``, or by ``save`` if ``whole_model``.

    Keras lists layers by depth, not in the order of making, and lists those without weights too; ``shuffle`` seeds
    another order than that of making.
    """
    names = [*layers, "input_1", "max_pooling2d"]
    if shuffle is not None:
        names = [names[i] for i in np.random.default_rng(shuffle).permutation(len(names))]
    with h5py.File(path, "w") as file:
        root = file.create_group("model_weights") if whole_model else file
        root.attrs["layer_names"] = [name.encode() for name in names]
        root.attrs["backend"], root.attrs["keras_version"] = b"tensorflow", b"2.2.4-tf"
        for name in names:
            group, weights = root.create_group(name), layers.get(name, {})
            group.attrs["weight_names"] = [f"{name}/{key}:0".encode() for key in weights]
            for key, value in weights.items():
                group.create_dataset(f"{name}/{key}:0", data=value)
    return path


# -- the networks, as their released codes call Keras, but for the sigmoid at the end --------------------------


def dr_unet(keras: KerasInNumpy, x: np.ndarray, dims: int, stem: int) -> np.ndarray:
    """DR-UNet (hemorrhage specification 2.1-2.2): logits (H, W, 1)."""

    def layer(x: np.ndarray, filters: int, size: int, activate: bool = True) -> np.ndarray:
        x = keras.norm(keras.conv(x, filters, size))
        return elu(x) if activate else x

    def unit(x: np.ndarray, quarter: int, filters: int) -> np.ndarray:
        out = layer(layer(x, quarter, 1), quarter, 3)
        out = layer(out, filters, 3, activate=False)
        return elu(out + layer(x, filters, 1))

    def level(x: np.ndarray, width: int) -> np.ndarray:
        return unit(unit(x, width // 4, width // 4), width // 4, width)

    x, skips = layer(x, stem, 1), []
    for factor in (1, 2, 4, 8, 16):
        skips.append(level(x, dims * factor))
        x = pool(skips[-1])
    x = level(x, dims * 32)
    for factor in (16, 8, 4, 2, 1):
        up = keras.conv_transpose(x, dims * factor)
        x = level(elu(keras.norm(np.concatenate([up, skips.pop()], axis=-1))), dims * factor)
    return keras.conv(x, 1, 1)


def bcdu_net(keras: KerasInNumpy, x: np.ndarray, base: int, depth: int) -> np.ndarray:
    """BCDU-Net D1 or D3 (stroke and disc specification 3.1) without its dropout: logits (H, W, 1)."""

    def pair(x: np.ndarray, filters: int) -> np.ndarray:
        return relu(keras.conv(relu(keras.conv(x, filters, 3)), filters, 3))

    skips = []
    for factor in (1, 2, 4):
        skips.append(pair(x, base * factor))
        x = pool(skips[-1])
    first = x = pair(x, 8 * base)
    if depth == 3:
        second = pair(first, 8 * base)
        x = pair(np.concatenate([second, first], axis=-1), 8 * base)
    for factor in (4, 2, 1):
        up = relu(keras.norm(keras.conv_transpose(x, base * factor)))
        x = keras.conv_lstm_backwards([skips.pop(), up], base * factor // 2)
        x = pair(x, base * factor)
    return keras.conv(relu(keras.conv(x, 2, 3)), 1, 1)


def mcgu_net(keras: KerasInNumpy, x: np.ndarray, base: int) -> np.ndarray:
    """MCGU-Net (stroke and disc specification 3.2) without its dropout: logits (H, W, 1)."""

    def vgg(x: np.ndarray, block: int, count: int) -> np.ndarray:
        for number in range(1, count + 1):
            x = relu(keras.conv(x, base * 2 ** (block - 1), 3, f"block{block}_conv{number}"))
        return x

    def pair(x: np.ndarray, filters: int) -> np.ndarray:
        return relu(keras.conv(relu(keras.conv(x, filters, 3)), filters, 3))

    def squeeze_excite(x: np.ndarray) -> np.ndarray:
        width = x.shape[-1]
        return x * sigmoid(keras.dense(relu(keras.dense(x.mean(axis=(0, 1)), max(1, width // 16))), width))

    skips = []
    for block, count in ((1, 2), (2, 2), (3, 3)):
        skips.append(vgg(x, block, count))
        x = pool(skips[-1])
    first = vgg(x, 4, 3)
    second = pair(first, 8 * base)
    x = pair(np.concatenate([second, first], axis=-1), 8 * base)
    for factor in (4, 2, 1):
        up = relu(keras.norm(squeeze_excite(keras.conv_transpose(x, base * factor))))
        x = keras.conv_lstm_backwards([skips.pop(), up], base * factor)
        x = squeeze_excite(pair(x, base * factor))
    return keras.conv(relu(keras.conv(x, 2, 3)), 1, 1)
