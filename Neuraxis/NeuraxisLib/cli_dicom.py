"""``neuraxis dicom``: a result folder as DICOM, in the study of the images that it was computed from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from NeuraxisLib import RESEARCH_USE_NOTICE
from NeuraxisLib.cli_process import faults_reported, prepare_process, shown_progress


def write_dicom(
    result: Annotated[Path, typer.Argument(help="Result folder.", metavar="RESULT", show_default=False)],
    source: Annotated[
        Path,
        typer.Argument(
            help="DICOM folder of the series that the result was computed from.", metavar="SOURCE", show_default=False
        ),
    ],
    output: Annotated[
        Path, typer.Argument(help="New or empty folder for the DICOM files.", metavar="OUTPUT", show_default=False)
    ],
    seg: Annotated[bool, typer.Option("--seg", help="Write the segmentation (DICOM SEG).")] = False,
    sr: Annotated[bool, typer.Option("--sr", help="Write the measurements (structured report, TID 1500).")] = False,
    maps: Annotated[bool, typer.Option("--maps", help="Write the maps (parametric maps).")] = False,
    report: Annotated[bool, typer.Option("--report", help="Write the report (encapsulated PDF).")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was written, or the error, as JSON.")] = False,
) -> None:
    """Write a result as DICOM: segmentation, measurements, maps and report; all that it has unless parts are named."""
    with faults_reported(as_json):
        prepare_process(None, hide_gpu=True)
        from NeuraxisLib.dicom_export import export_dicom

        chosen = [part for part, wanted in (("seg", seg), ("sr", sr), ("maps", maps), ("report", report)) if wanted]
        with shown_progress() as progress:
            exported = export_dicom(result, source, output, chosen, progress=progress)
        if as_json:
            names = [path.relative_to(output).as_posix() for path in exported.files]
            print(json.dumps({"status": "done", "files": names, "left_out": exported.left_out}, indent=1))
            return
        count = len(exported.files)
        lines = [f"{count} DICOM file{'s' if count > 1 else ''} in {output}"]
        print("\n".join([*lines, *(f"Note: {sentence}" for sentence in exported.left_out), RESEARCH_USE_NOTICE]))
