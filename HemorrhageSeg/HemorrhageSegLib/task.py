"""The hemorrhage task as every door of the product sees it; importing it imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from NeuraxisLib.errors import InputError, check_choice
from NeuraxisLib.series_rule import SeriesRule
from NeuraxisLib.task import Progress, Task, option
from NeuraxisLib.uncertainty_methods import CHOICES

if TYPE_CHECKING:
    from NeuraxisLib.models import ModelFile
    from NeuraxisLib.result import Result
    from NeuraxisLib.volume import Volume

PRECISIONS = ("auto", "float32", "bfloat16")
MOST_PASSES = 1000


@dataclass(frozen=True)
class HemorrhageOptions:
    """Options of the hemorrhage task. A negative number means: as the model file says."""

    device: str = option("auto", "Where to compute: auto, cpu, cuda, mps or openvino.")
    precision: str = option("auto", "auto, float32 or bfloat16; auto takes bfloat16 where it is faster and agrees.")
    threshold: float = option(-1.0, "Probability from which a voxel is called blood; negative: the model's.")
    min_component_ml: float = option(-1.0, "Connected bleeds below this many mL are dropped; negative: the model's.")
    uncertainty: str = option(
        "model",
        "How uncertainty is computed: model (as the model file says), entropy, slex_paper or slex_entropy (SLEX-Net), "
        "mc_dropout, mc_batchnorm, ensemble or tta.",
    )
    uncertainty_passes: int = option(20, "Predictions averaged by mc_dropout, mc_batchnorm and tta.")
    seed: int = option(0, "Seed of what is random in mc_dropout, mc_batchnorm and tta.")
    ensemble: str = option("", "Further models of an ensemble, by name or file, separated by commas.")
    keep_brain_mask: bool = option(False, "Add the intracranial space that was searched as a map.")
    legacy_batch_statistics: bool = option(
        False, "Normalise with the statistics of this patient's slices in one batch, as DR-UNet's released code did."
    )
    legacy_mask_threshold: bool = option(
        False, "Call a pixel blood from a probability of 1/255, as DR-UNet's released code did (after 8-bit rounding)."
    )
    legacy_fixed_dpi_volume: bool = option(
        False, "Add the volume as DR-UNet's released code measured it: 96 dpi, 4.5 mm slices, contours."
    )
    legacy_stretched_sheet: bool = option(
        False, "Stretch all probabilities to 0..1 before the threshold, as DR-UNet's validation pictures were."
    )

    legacy_no_skull_strip: bool = option(
        False, "Let a classical method search the whole picture, bone and all, as DR-UNet's publication compared it."
    )

    def __post_init__(self) -> None:
        check_choice("precision", self.precision, PRECISIONS)
        if self.threshold >= 1 or self.threshold == 0:
            raise InputError(f"The threshold is a probability between 0 and 1, not {self.threshold:g}; correct it.")
        check_choice("uncertainty", self.uncertainty, CHOICES)
        if not 2 <= self.uncertainty_passes <= MOST_PASSES:
            raise InputError(
                f"The number of passes lies between 2 and {MOST_PASSES}, not at {self.uncertainty_passes}; correct it."
            )
        if self.seed < 0:
            raise InputError(f"The seed is a whole number from 0 on, not {self.seed}; correct it.")


def _run(inputs: dict[str, Volume], model: ModelFile, options: HemorrhageOptions, progress: Progress) -> Result:
    from HemorrhageSegLib.pipeline import run

    return run(inputs, model, options, progress)


TASK = Task(
    name="hemorrhage",
    title="Segment hemorrhage",
    inputs={"ct": "a non-contrast head CT"},
    options_type=HemorrhageOptions,
    resources=Path(__file__).resolve().parent / "Resources",
    run=_run,
    originals="HemorrhageSegLib.networks.originals:ORIGINALS",
    corrections="HemorrhageSegLib.corrections",
    series=SeriesRule(
        "CT", "axial", least_slices=8, thickness_mm=(0.4, 8.0), soft_kernel=True, no_contrast=True,
        avoided=("bone", "angio", "perfusion"),
    ),
    example="HemorrhageSegLib.example:example",
)
