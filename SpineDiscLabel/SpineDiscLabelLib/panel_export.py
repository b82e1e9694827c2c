"""Files of a chain as a person has put it right: points, table, labels for other programs, the result folder anew."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from NeuraxisLib import result_folder
from NeuraxisLib.errors import OutputError
from NeuraxisLib.translation import translator
from SpineDiscLabelLib.exports import named_discs, write_bids_derivative, write_discs
from SpineDiscLabelLib.findings import others_table
from SpineDiscLabelLib.panel_scene import SceneChain

_ = translator(__name__)
#: What a corrected result says first.
CORRECTED = "A person has corrected these discs."


def file_filter() -> str:
    """The kinds of files in the form of Qt's file dialogs."""
    kinds = {
        ".mrk.json": _("Slicer point list"),
        ".csv": _("Table"),
        ".nii.gz": _("Labels of the Spinal Cord Toolbox"),
    }
    return ";;".join(f"{words} (*{ending})" for ending, words in kinds.items())


def write_chain(chain: SceneChain, path: str | Path, backward_mm: float = 0.0) -> None:
    """Write the discs as the file's name says: ``.mrk.json``, ``.csv``, ``.nii.gz`` or ``.nii``.

    Args:
        backward_mm: for NIfTI: move every point so far toward the back, where the toolbox puts its own labels.

    Raises:
        OutputError: another ending, or the file cannot be written.
        InputError, GeometryError: NIfTI cannot hold them (outside the image, in one voxel, tilted slices).
    """
    write_discs(chain.state.landmarks_from_above(), chain.image, path, backward_mm)


def write_bids(
    chain: SceneChain,
    dataset: str | Path,
    subject: str,
    session: str = "",
    suffix: str = "T2w",
    backward_mm: float = 0.0,
    reviewed: bool = False,
) -> Path:
    """Write the discs into a BIDS data set; see :func:`~SpineDiscLabelLib.exports.write_bids_derivative`."""
    discs, grid = named_discs(chain.state.landmarks_from_above()), chain.image
    return write_bids_derivative(discs, grid, dataset, subject, suffix, session, backward_mm, reviewed)


def write_corrected(chain: SceneChain, folder: Path) -> None:
    """Bring the result folder and its report up to date with the corrections.

    Raises:
        OutputError: it cannot be written.
    """
    result = result_folder.read_result(folder, chain.image)
    measurements, table = chain.findings()
    state = chain.state
    corrected = {"names_by_hand": [p.said for p in state.points if p.said], "steps": chain.editor.steps}
    others = {"alternatives": others_table(state.other_rows())} if state.others else {}
    tables = {name: one for name, one in result.tables.items() if name != "alternatives"}
    tables |= {"discs": table, **others}
    changed = replace(
        result,
        points=state.landmarks_from_above(),
        measurements=measurements,
        tables=tables,
        warnings=[*([CORRECTED] if chain.editor.is_corrected else []), *chain.warnings],
        provenance={**result.provenance, "corrected": corrected},
    )
    try:
        result_folder.write_result(changed, folder, carry_over=True)
    except ImportError as error:
        raise OutputError(f"The report needs the package {error.name} in Slicer's Python; install it.") from error
    chain.reported()
