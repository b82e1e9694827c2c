"""What DR-UNet's released code did that changed its numbers; for comparison with its publication, off by default.

- Batch statistics: BatchNorm ran in training mode, so a slice's result depends on the slices predicted with it
  (:func:`NeuraxisLib.inference.with_batch_statistics`; the batch is every slab of the patient that meets the brain).
- Mask threshold: probabilities were rounded down to 8 bits, enlarged, and everything above 0 was blood.
- Stretched sheet: the pictures that the best network was chosen by were stretched to their own range, so a sheet
  whose largest probability is 0.1 shows it as certain blood. (They were also paired with truth in folder order and
  stored as JPEG; neither is imitated.)
- Fixed resolution: volumes were counted on a 1440 x 1440 picture taken to have 96 dots per inch, slices of 4.5 mm,
  from contours: small and very large ones dropped, slices with more than eight ignored, holes added.
"""

from __future__ import annotations

import numpy as np

from NeuraxisLib.result import Measurement

SCREEN_PX = 1440
DOTS_PER_INCH = 96
SLICE_CM = 0.45
#: A contour counts if its area in pixels is above the first and below this share of the picture.
SMALLEST_AREA_PX, LARGEST_AREA_SHARE = 200, 0.94
MOST_CONTOURS = 8


def stretch(probability: np.ndarray) -> np.ndarray:
    """Probabilities stretched to 0..1 over the whole array; a constant array becomes 0."""
    low, high = float(probability.min()), float(probability.max())
    return (probability - low) / (high - low) if high > low else np.zeros_like(probability)


def floor_to_8_bit(probability: np.ndarray) -> np.ndarray:
    """uint8 of the probabilities, rounded down: 0 below 1/255."""
    return np.floor(np.clip(probability, 0, 1) * 255 + 1e-5).astype(np.uint8)


def screen_mask(picture: np.ndarray, side: int = SCREEN_PX) -> np.ndarray:
    """8-bit slice (H, W) enlarged linearly to ``side`` squared, rounded, and cut above 0: (side, side) bool."""
    from torch import from_numpy
    from torch.nn.functional import interpolate

    values = from_numpy(picture.astype(np.float32))[None, None]
    enlarged = interpolate(values, (side, side), mode="bilinear", align_corners=False)[0, 0].numpy()
    return enlarged >= 0.5  # rounding half up, as 8-bit pictures are enlarged


def contour_areas_px(mask: np.ndarray) -> list[float]:
    """Areas of all outer and hole contours of a 2-D mask, each drawn through the centres of its border pixels.

    Such a polygon covers a square between four pixel centres wholly if all four lie on its side, and by half if
    three do; a hole's border lies on the pixels around it, so a square with one pixel of the hole counts by half.
    """
    from scipy import ndimage

    def filled(regions: np.ndarray, number: int, box: tuple, around: np.ndarray | None) -> np.ndarray:
        """One region without its own holes; what surrounds it is connected by the structure ``around``."""
        region = np.pad(regions[box] == number, 1)
        outside, _ = ndimage.label(~region, around)
        return outside != outside[0, 0]

    square = np.ones((3, 3))
    mask = np.pad(mask, 1)
    areas = []
    parts, _ = ndimage.label(mask, square)
    for number, box in enumerate(ndimage.find_objects(parts), 1):
        corners = _corners_set(filled(parts, number, box, None))
        areas.append(float((corners == 4).sum() + 0.5 * (corners == 3).sum()))
    spaces, _ = ndimage.label(~mask)
    for number, box in enumerate(ndimage.find_objects(spaces), 1):
        if number != spaces[0, 0]:
            corners = _corners_set(filled(spaces, number, box, square))
            areas.append(float((corners >= 2).sum() + 0.5 * (corners == 1).sum()))
    return areas


def _corners_set(region: np.ndarray) -> np.ndarray:
    """For every square between four neighbouring pixels: how many of them lie in the region."""
    region = region.astype(np.uint8)
    return region[:-1, :-1] + region[1:, :-1] + region[:-1, 1:] + region[1:, 1:]


def slice_area_cm2(mask: np.ndarray) -> float:
    """Area of a slice as the released code counts it on its picture; 0 with more than eight contours."""
    largest = LARGEST_AREA_SHARE * mask.size
    kept = [area for area in contour_areas_px(mask) if SMALLEST_AREA_PX < area < largest]
    if len(kept) > MOST_CONTOURS:
        return 0.0
    return sum(kept) / DOTS_PER_INCH**2 * 25.4**2 / 100


def fixed_dpi_volume_ml(probability: np.ndarray) -> float:
    """Volume in mL of network-sized probabilities (n, H, W) as the released code counts it."""
    pictures = floor_to_8_bit(probability)
    return SLICE_CM * sum(slice_area_cm2(screen_mask(picture)) for picture in pictures if picture.any())


def fixed_dpi_measurement(probability: np.ndarray) -> Measurement:
    """The same as a measurement that says what it is."""
    return Measurement(
        "Volume, legacy count",
        fixed_dpi_volume_ml(probability),
        "mL",
        note="As DR-UNet's released code counts it: 96 dpi, 4.5 mm slices, contours. Not anatomical.",
    )
