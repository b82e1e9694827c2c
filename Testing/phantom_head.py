"""A head of nested ellipsoids: as a whole-head label map at 1 mm and as a bleed-free "real" CT in thick slices."""

from __future__ import annotations

from functools import cache

import numpy as np

from NeuraxisLib.volume import Volume

#: Slice thickness of the phantom CT.
SLICE_MM = 5.0
#: HU of each label in the phantom CT; everything else is air.
HU = {
    507: 40, 515: 900, 24: 8, 3: 37, 42: 37, 2: 28, 41: 28, 8: 37, 47: 37, 7: 28, 46: 28,
    4: 8, 43: 8, 14: 8, 31: 25, 63: 25, 52: 37, 13: 37,
}  # fmt: skip
LEFT, RIGHT = (2, 3, 4, 7, 8, 13, 31), (41, 42, 43, 46, 47, 52, 63)


@cache
def label_map() -> np.ndarray:
    """int16 (k, j, i) = (up, posterior, left), 1 mm, about 110 voxels across, numbered as SynthSeg numbers tissue."""
    shape = (120, 120, 112)
    z, y, x = np.meshgrid(*[np.arange(n) - n / 2 + 0.5 for n in shape], indexing="ij")

    def ball(radii: tuple[float, float, float], centre: tuple[float, float, float] = (0, 0, 0)) -> np.ndarray:
        return sum(((a - c) / r) ** 2 for a, c, r in zip((z, y, x), centre, radii)) < 1

    labels = np.zeros(shape, np.int16)
    for value, shrink in ((507, 0), (515, 5), (24, 10), (3, 12), (2, 16)):
        labels[ball((56 - shrink, 56 - shrink, 52 - shrink))] = value
    labels[ball((15, 14, 26), (-26, 24, 0)) & (labels > 0) & (labels < 500)] = 24
    labels[ball((14, 13, 25), (-26, 24, 0)) & ball((45, 45, 41))] = 8
    labels[ball((9, 8, 18), (-26, 24, 0))] = 7
    labels[ball((6, 6, 4), (-2, -4, 16))] = 13
    for side in (-1, 1):
        labels[ball((8, 22, 5), (8, 0, 9 * side))] = 4
        labels[ball((3, 6, 2), (7, 10, 9 * side))] = 31
        labels[ball((6, 6, 4), (-4, -4, 18 * side))] = 13
    labels[ball((8, 9, 1.6), (-4, 2, 0))] = 14
    right = np.broadcast_to(x < 0, shape)
    for left_value, right_value in zip(LEFT, RIGHT):
        labels[right & (labels == left_value)] = right_value
    labels[(np.abs(x) < 1) & np.isin(labels, (2, 3, 41, 42)) & (z > 16)] = 24
    labels.flags.writeable = False
    return labels


@cache
def real_head(noise_hu: float = 3.0) -> tuple[Volume, np.ndarray]:
    """(CT in HU, brain mask) as a scanner would give them of the phantom: 5 mm slices, 1 mm pixels, white noise."""
    labels = label_map()
    table = np.full(int(labels.max()) + 1, -1000, np.float32)
    for value, hu in HU.items():
        table[value] = hu
    thick = int(SLICE_MM)
    image = table[labels].reshape(-1, thick, *labels.shape[1:]).mean(axis=1)
    brain = ((labels > 0) & (labels < 500)).reshape(-1, thick, *labels.shape[1:]).mean(axis=1) > 0.5
    image = image + np.random.default_rng(7).normal(0, noise_hu, image.shape) * (image > -500)
    matrix = np.diag([-1.0, -1.0, SLICE_MM, 1.0])
    matrix[:3, 3] = 50, 60, -30
    return Volume(np.rint(image).astype(np.int16), matrix, "HU", meta={"modality": "CT"}), brain
