"""Preprocessing as data for networks that read perfusion maps: which maps, in numbers or in colours, and in what range.

The description travels in the model file (``preprocessing.kind`` is "maps") and is executed here alone, for training
and inference alike. The published networks saw screenshots: blue, green and red of 0 to 255, nothing subtracted
(stroke and disc specification 1.7); maps of any origin can be shown to them in those colours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

import numpy as np

from NeuraxisLib.errors import InputError, ModelError
from StrokeCTPLib.colour_scales import MIP_RANGE_HU, SCALE_OF, STAVANGER_RANGES, coloured
from StrokeCTPLib.networks.configurations import ALL_MAPS, MAPS, MIP, SCALARS

KIND = "maps"
#: As colour-coded maps (3 channels each), or as the share of the range (1 channel each).
SHOWN = ("colours", "numbers")
#: Lowest and highest value that are shown.
RANGES = {**STAVANGER_RANGES, MIP: MIP_RANGE_HU, "mtt": (0.0, 20.0), "delay": (0.0, 12.0)}
#: What a number of the patient may be.
SCALAR_RANGES = {"nihss": (0, 42), "age": (0, 120), "gender": (0, 1)}
#: Pixel size of the published maps.
PIXEL_MM = 0.4366455
#: ImageNet's mean of blue, green and red.
MEAN_BGR = (103.939, 116.779, 123.68)
SIZES = (32, 2048)


@dataclass(frozen=True)
class MapPreprocessing:
    """How a network sees perfusion maps.

    Attributes:
        maps: which, in the order of the network's branches; of cbf, cbv, ttp, tmax, mip, mtt and delay.
        scalars: numbers of the patient, of nihss, age and gender in that order; each becomes a plane of its value.
        size: pixels of a side; what is shown is a square of ``size * pixel_mm``.
        shown: one of :data:`SHOWN`.
        pixel_mm: pixel size of the network's grid.
        ranges: map -> lowest and highest value shown.
        subtract_mean: in colours, take ImageNet's mean off, as VGG-16 was trained; the published networks do not.
        tile: pixels of the side of the tiles that the network is shown one by one; 0 shows all at once.
    """

    maps: tuple[str, ...] = MAPS
    scalars: tuple[str, ...] = ()
    size: int = 512
    shown: str = "colours"
    pixel_mm: float = PIXEL_MM
    ranges: dict[str, tuple[float, float]] = field(default_factory=lambda: dict(RANGES))
    subtract_mean: bool = False
    tile: int = 0

    @classmethod
    def from_dict(cls, data: dict) -> MapPreprocessing:
        """Read the description of a model file; ModelError names what is wrong."""
        unknown = sorted(set(data) - set(cls.__dataclass_fields__) - {"kind"})
        if unknown or data.get("kind") != KIND or "maps" not in data:
            what = f"an unknown entry '{unknown[0]}'" if unknown else "no entry 'maps' of kind 'maps'"
            raise ModelError(f"The model's preprocessing has {what}; install the model again.")
        given = {key: value for key, value in data.items() if key != "kind"}
        try:
            given["maps"], given["scalars"] = tuple(given["maps"]), tuple(given.get("scalars", ()))
            given["ranges"] = {**RANGES, **{k: (float(a), float(b)) for k, (a, b) in given.get("ranges", {}).items()}}
            made = cls(**given)
            sound = (
                bool(made.maps)
                and set(made.maps) <= set(ALL_MAPS)
                and set(made.scalars) <= set(SCALARS)
                and made.shown in SHOWN
                and SIZES[0] <= made.size <= SIZES[1]
                and made.size % 32 == 0
                and made.side % 32 == 0
                and 0 < made.side <= made.size
                and made.size % made.side == 0
                and 0.05 <= made.pixel_mm <= 20
                and all(np.isfinite(pair).all() and pair[0] < pair[1] for pair in made.ranges.values())
            )
        except (TypeError, ValueError, AttributeError):
            sound = False
        if not sound:
            raise ModelError("The model's preprocessing cannot be (its maps, size or ranges); install the model again.")
        return made

    def to_dict(self) -> dict:
        """The description as a model file holds it."""
        data = asdict(self)
        data["ranges"] = {name: list(self.ranges[name]) for name in self.maps}
        return {"kind": KIND, **data, "maps": list(self.maps), "scalars": list(self.scalars)}

    @property
    def side(self) -> int:
        """Pixels of the side of what the network is shown at once."""
        return self.tile or self.size

    @property
    def map_channels(self) -> int:
        """Channels of one map."""
        return 3 if self.shown == "colours" else 1

    @property
    def channels(self) -> int:
        """Channels of the network's input."""
        return len(self.maps) * self.map_channels + len(self.scalars)

    def images(self, maps: Mapping[str, np.ndarray], scalars: Mapping[str, float] | None = None) -> np.ndarray:
        """What the network is given: float32 (k, channels, size, size).

        Args:
            maps: name -> (k, size, size), or tiles of it (k, side, side), in the unit of its range, on the network's
                grid; NaN outside the brain and where there is no value, which is shown black.
            scalars: name -> number.

        Raises:
            InputError: a map or a number that the network reads is not there, has another grid, or cannot be.
        """
        missing = [name for name in self.maps if name not in maps]
        if missing:
            raise InputError(f"The map {missing[0].upper()} is missing; the model reads {_listed(self.maps)}.")
        shapes = {np.shape(maps[name]) for name in self.maps}
        if len(shapes) > 1:
            raise InputError("The perfusion maps lie on different grids; give maps of one series.")
        (shape,) = shapes
        if len(shape) != 3 or shape[1:] not in ((self.size, self.size), (self.side, self.side)):
            raise InputError(f"The model reads maps of {self.size} x {self.size} pixels; resample them to that grid.")
        planes = [self._shown(name, np.asarray(maps[name], np.float32)) for name in self.maps]
        return self._with_numbers(planes, scalars)

    def pictures(self, bgr: np.ndarray, scalars: Mapping[str, float] | None = None) -> np.ndarray:
        """What the network is given of maps that are pictures already, in colours as it wants them.

        Args:
            bgr: (k, 3 x maps, side, side) blue, green and red of 0 to 255 of one map after the other.
            scalars: name -> number.

        Raises:
            InputError: the network reads numbers, or a number of the patient is missing.
        """
        if self.shown != "colours" or bgr.shape[1] != 3 * len(self.maps):
            raise InputError("The maps are pictures, but the network reads numbers; turn their colours into numbers.")
        bgr = np.asarray(bgr, np.float32)
        if self.subtract_mean:
            bgr = bgr - np.tile(np.array(MEAN_BGR, np.float32), len(self.maps))[:, None, None]
        return self._with_numbers([bgr], scalars)

    def _with_numbers(self, planes: list[np.ndarray], scalars: Mapping[str, float] | None) -> np.ndarray:
        shape = (len(planes[0]), 1, *planes[0].shape[2:])
        return np.concatenate([*planes, *(np.full(shape, n, np.float32) for n in self._numbers(scalars or {}))], axis=1)

    def _shown(self, name: str, values: np.ndarray) -> np.ndarray:
        """(k, size, size) -> (k, map_channels, size, size)."""
        low, high = self.ranges[name]
        if self.shown == "numbers" or name == MIP:
            share = np.nan_to_num(np.clip((values - low) / (high - low), 0, 1))[:, None]
            if self.shown == "numbers":
                return share
            bgr = np.repeat(np.rint(255 * share), 3, axis=1)
        else:
            bgr = np.moveaxis(coloured(values, SCALE_OF[name], (low, high))[..., ::-1], -1, 1).astype(np.float32)
        return bgr - np.array(MEAN_BGR, np.float32)[:, None, None] if self.subtract_mean else bgr

    def _numbers(self, scalars: Mapping[str, float]) -> list[float]:
        for name in self.scalars:
            low, high = SCALAR_RANGES[name]
            value = scalars.get(name)
            if value is None:
                raise InputError(f"The model reads {_listed(self.scalars)}, but {name.upper()} is not given; enter it.")
            if not low <= value <= high:  # NaN too
                raise InputError(f"{name.upper()} {value:g} is outside {low} to {high}; correct it.")
        return [float(scalars[name]) for name in self.scalars]


def transit_time(cbf: np.ndarray, cbv: np.ndarray) -> np.ndarray:
    """MTT in s by the central volume theorem, 60 CBV / CBF, at most 60 s and 0 where hardly any blood flows.

    As our own maps have it; for map sets that do not come with one. NaN stays NaN.
    """
    with np.errstate(invalid="ignore"):
        mtt = np.minimum(60 * cbv / np.maximum(cbf, 0.5), 60.0)
        return np.where(cbf <= 0.5, 0 * cbf, mtt).astype(np.float32)


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(name.upper() for name in names)
