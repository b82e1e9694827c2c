"""The stroke task as every door of the product sees it; importing it imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from NeuraxisLib.errors import InputError, check_choice
from NeuraxisLib.series_rule import SeriesRule
from NeuraxisLib.task import Progress, Task, option
from StrokeCTPLib.mismatch import Patient
from StrokeCTPLib.threshold_rules import THRESHOLD_RULES

if TYPE_CHECKING:
    from NeuraxisLib.models import ModelFile
    from NeuraxisLib.result import Result

#: What the words of the options may be.
CHOICES = {
    "precision": ("auto", "float32", "bfloat16"),
    "kind": ("auto", "frames", "maps"),
    "motion": ("auto", "on", "off"),
    "deconvolution": ("bsvd", "osvd", "ssvd", "tikhonov"),
    "residue": ("gamma", "exponential", "linear", "box"),
    "family": ("calibrated", "svd", "model"),
}
#: (lowest, highest) of the options that are numbers, where given.
LIMITS = {
    "interval_s": (0.1, 30.0),
    "smoothing_mm": (0.0, 15.0),
    "strength": (0.001, 1.0),
    "pooling_mm": (0.0, 15.0),
    "late_s": (0.5, 30.0),
    "rcbf": (0.01, 0.99),
    "smallest_ml": (0.0, 100.0),
    "smallest_core_ml": (0.0, 100.0),
    "gender": (0.0, 1.0),
}


@dataclass(frozen=True)
class StrokeOptions:
    """Options of the stroke task. The thresholds are those of the standard engine (plain bSVD); see ``family``."""

    device: str = option("auto", "Where to compute: auto, cpu, cuda, mps or openvino.")
    precision: str = option("auto", "Of a network: auto, float32 or bfloat16.")
    kind: str = option("auto", "What the input is: frames, maps, or auto to look.")
    times: str = option("", "File with the time of every frame (.json, .csv, .txt); overrides what the images say.")
    interval_s: float | None = option(
        None, "Seconds between frames, where the images do not say when they were taken."
    )
    ranges: str = option(
        "", "Upper ends of the colour bars of maps in colours, such as cbf=100,tmax=12; or stavanger."
    )
    spacing_mm: str = option("", "Voxel size of maps that are pictures, column,row,slice in mm, such as 0.45,0.45,5.")
    motion: str = option("auto", "Correct motion between frames: auto (where the head has moved), on or off.")
    smoothing_mm: float = option(2.15, "SD of the smoothing within slices, in mm; 0 for none.")
    edge_preserving: bool = option(True, "Average neighbours with like time curves rather than by distance alone.")
    deconvolution: str = option("bsvd", "Of the maps by deconvolution: bsvd, osvd, ssvd or tikhonov.")
    strength: float | None = option(None, "Cut, limit or lambda of the deconvolution; the usual one if not given.")
    residue: str = option(
        "gamma", "Shape of the residue function of the model maps: gamma, exponential, linear or box."
    )
    pooling_mm: float = option(0.0, "SD over which the likelihood of the model is pooled, in mm; 0 for none.")
    family: str = option(
        "calibrated",
        "Maps from which lesions are drawn: svd (the thresholds as they are), calibrated (what they mean at this "
        "patient's noise and artery) or model (what they mean in the model's delay).",
    )
    late_s: float = option(6.0, "Tmax in s above which tissue is hypoperfused.")
    rcbf: float = option(0.30, "Share of the other side's flow below which hypoperfused tissue is core.")
    smallest_ml: float = option(3.0, "Hypoperfused regions below this many mL are dropped.")
    smallest_core_ml: float = option(1.0, "Core regions below this many mL are dropped.")
    artery: str = option("", "Voxel of the artery to take, slice,row,column from 0 as the image is stored.")
    vein: str = option("", "Voxel of the vein to take, slice,row,column from 0 as the image is stored.")
    nihss: int | None = option(None, "NIHSS, 0 to 42, for trial criteria and networks that read it.")
    age: float | None = option(None, "Age in years, for trial criteria and networks that read it.")
    gender: float | None = option(None, "0 male, 1 female, for networks that read it.")
    onset_hours: float | None = option(None, "Hours from last seen well to the scan, for trial criteria.")
    flip_averaging: bool = option(False, "Average a network's prediction with that of the mirror image.")

    def __post_init__(self) -> None:
        for name, words in CHOICES.items():
            check_choice(name, getattr(self, name), words)
        for name, (low, high) in LIMITS.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                words = name.replace("_", " ")
                raise InputError(f"The option {words} lies between {low:g} and {high:g}, not at {value:g}; correct it.")
        _ = self.patient, self.artery_kji, self.vein_kji, self.picture_spacing_mm  # each says what is wrong with it

    @property
    def patient(self) -> Patient:
        """What trials ask beside the images; InputError if it cannot be."""
        return Patient(self.nihss, self.age, self.onset_hours)

    @property
    def artery_kji(self) -> tuple[int, int, int] | None:
        """Voxel of the artery; None to find it."""
        return _voxel(self.artery, "artery")

    @property
    def vein_kji(self) -> tuple[int, int, int] | None:
        """Voxel of the vein; None to find it."""
        return _voxel(self.vein, "vein")

    @property
    def picture_spacing_mm(self) -> tuple[float, float, float] | None:
        """(column, row, slice) of maps that are pictures; None if they say it."""
        if not self.spacing_mm:
            return None
        try:
            spacing = tuple(float(word) for word in self.spacing_mm.split(","))
        except ValueError:
            spacing = ()
        if len(spacing) != 3 or not all(0.05 <= size <= 50 for size in spacing):
            raise InputError(
                f"The voxel size '{self.spacing_mm}' is not column,row,slice in mm; write such as 0.45,0.45,5."
            )
        return spacing


def _voxel(text: str, what: str) -> tuple[int, int, int] | None:
    if not text.strip():
        return None
    try:
        voxel = tuple(int(word) for word in text.split(","))
    except ValueError:
        voxel = ()
    if len(voxel) != 3 or min(voxel) < 0:
        raise InputError(f"The voxel of the {what} '{text}' is not slice,row,column from 0; write such as 7,120,96.")
    return voxel


def _run(inputs: dict[str, Any], model: ModelFile | None, options: StrokeOptions, progress: Progress) -> Result:
    from StrokeCTPLib.pipeline import run

    return run(inputs, model, options, progress)


TASK = Task(
    name="stroke",
    title="Analyse perfusion",
    inputs={
        "perfusion": "CT perfusion: a DICOM folder or 4-D NIfTI, NRRD or MetaImage of the frames, or a folder of maps",
        "exclude": "Mask of tissue to leave out of the lesions (artefacts), on the grid of the frames or maps.",
    },
    options_type=StrokeOptions,
    resources=Path(__file__).resolve().parent / "Resources",
    run=_run,
    example="StrokeCTPLib.example:example",
    originals="StrokeCTPLib.networks.originals:ORIGINALS",
    corrections="StrokeCTPLib.corrections",
    readers={"perfusion": "StrokeCTPLib.inputs:read_perfusion"},
    optional=frozenset({"exclude"}),
    needs_model=False,
    rules=tuple(THRESHOLD_RULES),
    series=SeriesRule("CT", whole_study=True),
)
