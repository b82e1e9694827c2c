"""Slices as 8-bit pictures: what SLEX-Net and DR-UNet were trained on. They hold no HU and mostly no spacing."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from NeuraxisLib.errors import InputError
from NeuraxisLib.volume import Volume
from Training.layouts.base import LayoutOptions

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
#: Unit of 8-bit pictures: a window was chosen before they were saved, and HU cannot be had back.
GREY = "grey"
SPACING_UNKNOWN = "spacing unknown"
#: Grey from which a mask's pixel counts as marked; pixels well between 0 and 255 come from lossy saving or smoothing.
_MARKED, _SURE = 128, 32
#: Channels of a grey picture saved in colour differ by no more than this, for rounding of lossy saving.
_GREY_TOLERANCE = 8


def read_picture(path: Path) -> np.ndarray:
    """An 8-bit grey picture as uint8 (rows, columns), whatever kind its name says it is.

    Raises:
        InputError: damaged, in colours, or of more than 8 bits.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            picture.load()
            if picture.mode in ("1", "L", "P", "LA"):
                return np.asarray(picture.convert("L"))
            channels = np.asarray(picture.convert("RGB")) if picture.mode in ("RGB", "RGBA") else None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError):  # Pillow's errors of damaged files
        raise InputError(f"'{path.name}' is not a picture or is damaged; copy or export it again.") from None
    if channels is None:
        raise InputError(f"'{path.name}' has more than 8 bits per pixel; use a layout for CT volumes, or save 8 bits.")
    if int(np.ptp(channels.astype(np.int16), axis=-1).max()) > _GREY_TOLERANCE:
        raise InputError(f"'{path.name}' is in colours; export the grey picture without overlays.")
    return channels[..., 0]


def marked(mask: np.ndarray, name: str) -> tuple[np.ndarray, list[str]]:
    """A mask picture (0 or 255, or 0 or 1) as labels 0 and 1, with a warning where its edges are soft."""
    if mask.max() <= 1:
        return mask.astype(np.uint8), []
    soft = int(np.count_nonzero((mask >= _SURE) & (mask < 256 - _SURE)))
    text = f"The mask of '{name}' has {soft} pixels between 0 and 255; those from {_MARKED} up were taken as marked."
    return (mask >= _MARKED).astype(np.uint8), [text] if soft else []


def picture_volume(array: np.ndarray, options: LayoutOptions) -> tuple[Volume, tuple[str, ...]]:
    """Slices (k, j, i) as a volume in unit grey, and its flags.

    Columns run to the patient's left, rows to posterior, slices upward, as head CTs are shown; whether that is so the
    pictures do not say. Without ``options.spacing_mm`` a voxel is 1 mm in all directions and the flag says so.
    """
    x, y, z = options.spacing_mm or (1.0, 1.0, 1.0)
    flags = () if options.spacing_mm else (SPACING_UNKNOWN,)
    return Volume(np.ascontiguousarray(array), np.diag([-x, -y, z, 1.0]), GREY), flags
