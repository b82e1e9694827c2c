"""``neuraxis maps``: the maps of a result folder as DICOM."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from NeuraxisLib.cli_process import faults_reported, prepare_process, shown_progress

#: Who knows how perfusion maps are coded and coloured.
_WRITER = "StrokeCTPLib.map_writing"


def write_dicom_maps(
    result: Annotated[Path, typer.Argument(help="Result folder.", metavar="RESULT", show_default=False)],
    output: Annotated[
        Path, typer.Argument(help="New or empty folder for the DICOM files.", metavar="OUTPUT", show_default=False)
    ],
    form: Annotated[
        str,
        typer.Option("--format", help="parametric: one file of numbers for each map; rgb: pictures with colour bar."),
    ] = "parametric",
    source: Annotated[
        Path | None,
        typer.Option("--source", help="DICOM folder that the result was made from; the maps join its study."),
    ] = None,
    scale: Annotated[
        str, typer.Option("--scale", help="Colours of the pictures: jet, flow, time, or usual for each map's own.")
    ] = "jet",
    as_json: Annotated[bool, typer.Option("--json", help="Print an error as JSON.")] = False,
) -> None:
    """Write the maps of a result as DICOM parametric maps, or as pictures with a colour bar."""
    with faults_reported(as_json):
        prepare_process(None, hide_gpu=True)
        with shown_progress() as progress:
            paths = import_module(_WRITER).export_maps(result, output, form, source, scale, progress)
        print(f"{len(paths)} DICOM file{'s' if len(paths) > 1 else ''} in {output}")
