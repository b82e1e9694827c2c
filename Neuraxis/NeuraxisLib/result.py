"""Result: what every task returns, whatever is done with it afterwards."""

from __future__ import annotations

from dataclasses import dataclass, field

from NeuraxisLib.volume import Volume


@dataclass(frozen=True)
class Measurement:
    """One number with its unit.

    Attributes:
        name: what was measured, e.g. ``"Total volume"``.
        value: the number; None when it is undefined (diameter of an empty mask).
        unit: ``"mL"``, ``"mm"``, ``"slices"``; empty for ratios.
        interval: (low, high) in the same unit, or None.
        segment: name of the segment it belongs to; empty for the whole case.
        note: how it was obtained, or what to beware of.
    """

    name: str
    value: float | None
    unit: str
    interval: tuple[float, float] | None = None
    segment: str = ""
    note: str = ""


@dataclass(frozen=True)
class Table:
    """A table for people and for CSV: column heads with units, rows of numbers and words.

    Attributes:
        title: what the table shows.
        columns: (head, unit) per column; unit may be empty.
        rows: one tuple per row, as long as ``columns``; None is shown as a dash.
    """

    title: str
    columns: tuple[tuple[str, str], ...]
    rows: tuple[tuple, ...]


@dataclass(frozen=True)
class ScalarMap:
    """A map to lay over the source image.

    Attributes:
        volume: the values, on the source grid.
        title: what it shows, e.g. ``"Uncertainty (entropy)"``.
        value_range: (low, high) at which the colours start and end.
        note: how it was computed, in a sentence.
    """

    volume: Volume
    title: str
    value_range: tuple[float, float]
    note: str = ""


@dataclass(frozen=True)
class Curve:
    """One line of a plot: ``y`` over ``x``, of equal length; a ``y`` that is not a number is a gap."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]

    def __post_init__(self) -> None:
        for axis in ("x", "y"):
            object.__setattr__(self, axis, tuple(float(value) for value in getattr(self, axis)))
        if len(self.x) != len(self.y):
            raise ValueError(f"the curve {self.name!r} has {len(self.x)} places and {len(self.y)} values")


@dataclass(frozen=True)
class CurvePlot:
    """Curves that belong on one pair of axes.

    Attributes:
        title: what the plot shows.
        x_label, y_label: (name, unit) of the axes.
        curves: in the order of the legend; names differ. They need not share their places on the x axis.
    """

    title: str
    x_label: tuple[str, str] = ("Time", "s")
    y_label: tuple[str, str] = ("Contrast", "HU")
    curves: tuple[Curve, ...] = ()


@dataclass(frozen=True)
class Landmark:
    """A named point in the patient.

    Attributes:
        name: what lies there, such as ``"L4/L5"`` or ``"Artery"``.
        position_ras_mm: (R, A, S).
        confidence: 0 to 1; None where nothing was estimated.
        note: what a reader should know of it.
    """

    name: str
    position_ras_mm: tuple[float, float, float]
    confidence: float | None = None
    note: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "position_ras_mm", tuple(float(value) for value in self.position_ras_mm))
        if len(self.position_ras_mm) != 3:
            raise ValueError(f"the point {self.name!r} has {len(self.position_ras_mm)} coordinates")


@dataclass
class Result:
    """Everything a task found in one case.

    Attributes:
        task: name of the task.
        source: the image that was measured.
        labels: label map on the source grid (uint8; values as in the task's label table), or None.
        maps: short name (a file stem) -> ScalarMap.
        measurements: the numbers, most important first; the first is the headline.
        tables: short name (a file stem) -> Table.
        curves: short name (a file stem) -> CurvePlot.
        points: named points, in the order in which a reader wants them.
        key_slices: slice indices k to look at first (the most uncertain ones), most uncertain first.
        warnings: sentences a reader has to see beside the numbers.
        provenance: versions, model name and sha256, device, options, times; no name, id or path.
    """

    task: str
    source: Volume
    labels: Volume | None = None
    maps: dict[str, ScalarMap] = field(default_factory=dict)
    measurements: list[Measurement] = field(default_factory=list)
    tables: dict[str, Table] = field(default_factory=dict)
    curves: dict[str, CurvePlot] = field(default_factory=dict)
    points: list[Landmark] = field(default_factory=list)
    key_slices: list[int] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    provenance: dict = field(default_factory=dict)
