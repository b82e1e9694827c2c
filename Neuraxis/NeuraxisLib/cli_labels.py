"""``neuraxis labels``: the discs of a result folder in files for other programs."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from NeuraxisLib.cli_process import faults_reported, prepare_process

#: Who knows how discs are written.
_WRITER = "SpineDiscLabelLib.exports"


def write_disc_labels(
    result: Annotated[Path, typer.Argument(help="Result folder.", metavar="RESULT", show_default=False)],
    output: Annotated[
        Path, typer.Argument(help="File to write; bids: root of the data set.", metavar="OUTPUT", show_default=False)
    ],
    form: Annotated[
        str,
        typer.Option(
            "--format",
            help="points (.mrk.json), csv, sct (one voxel per disc in the Spinal Cord Toolbox's numbers, .nii.gz) or "
            "bids (the same as a derivative); without it, what the file's ending says.",
        ),
    ] = "",
    backward_mm: Annotated[
        float, typer.Option("--backward-mm", help="Move voxels so far to the back; the toolbox marks the back edge.")
    ] = 0.0,
    subject: Annotated[str, typer.Option("--subject", help="bids: label of the subject.")] = "",
    session: Annotated[str, typer.Option("--session", help="bids: label of the session, if there are several.")] = "",
    suffix: Annotated[str, typer.Option("--suffix", help="bids: T1w or T2w.")] = "T2w",
    reviewed: Annotated[bool, typer.Option("--reviewed", help="bids: a person has checked the labels.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print an error as JSON.")] = False,
) -> None:
    """Write the discs of a result as point list, CSV, label image or BIDS derivative."""
    with faults_reported(as_json):
        prepare_process(None, hide_gpu=True)
        bids = {"subject": subject, "session": session, "suffix": suffix, "reviewed": reviewed}
        print(import_module(_WRITER).export_result(result, output, form, backward_mm, **bids))
