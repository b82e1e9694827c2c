"""``neuraxis followup``: how much a hemorrhage changed between two scans of one patient."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from NeuraxisLib.cli_process import faults_reported, prepare_process, shown_progress
from NeuraxisLib.errors import InputError
from NeuraxisLib.result_folder import RESULT_FILE
from NeuraxisLib.run import run_case
from NeuraxisLib.task import DEVICES

#: Task that compares two scans.
_TASK = "followup"


def follow_up_command(
    baseline: Annotated[
        Path,
        typer.Argument(
            help="Earlier head CT, or its result folder (then name the scan with --baseline-scan).",
            metavar="BASELINE",
            show_default=False,
        ),
    ],
    later: Annotated[
        Path,
        typer.Argument(
            help="Later head CT of the same patient, or its result folder (then name the scan with --later-scan).",
            metavar="LATER",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path,
        typer.Argument(
            help="Folder for the result; new, empty, or an earlier result, which is replaced.",
            metavar="OUTPUT",
            show_default=False,
        ),
    ],
    baseline_scan: Annotated[
        Path | None, typer.Option("--baseline-scan", help="Scan that the result (or label map) BASELINE was made from.")
    ] = None,
    later_scan: Annotated[
        Path | None, typer.Option("--later-scan", help="Scan that the result (or label map) LATER was made from.")
    ] = None,
    model: Annotated[
        str, typer.Option("--model", help="Installed model or model file that outlines a scan without a result.")
    ] = "",
    device: Annotated[str, typer.Option("--device", help=f"Where to compute: {', '.join(DEVICES)}.")] = "auto",
    series: Annotated[
        str | None, typer.Option("--series", help="Series of BASELINE; see 'neuraxis info FOLDER'.")
    ] = None,
    later_series: Annotated[str, typer.Option("--later-series", help="Series of LATER.")] = "",
    allow_gaps: Annotated[
        bool, typer.Option("--allow-gaps", help="Measure a DICOM series although slices are missing.")
    ] = False,
    hours: Annotated[
        float, typer.Option("--hours", help="Hours between the scans; as DICOM says if not given.", show_default=False)
    ] = -1.0,
    threads: Annotated[
        int | None, typer.Option("--threads", help="Threads to compute with; all cores if not given.", min=1)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result, or the error, as JSON.")] = False,
) -> None:
    """Follow up a hemorrhage: change in mL and %, expansion, what is new and gone. Writes a result folder."""
    from NeuraxisLib.cli import as_record, summary

    with faults_reported(as_json):
        prepare_process(threads, hide_gpu=device == "cpu")
        earlier_path, earlier_result = _scan_and_result(baseline, baseline_scan, "--baseline-scan")
        later_path, later_result = _scan_and_result(later, later_scan, "--later-scan")
        options = {
            "model": model,
            "baseline_result": earlier_result,
            "later_result": later_result,
            "later_series": later_series,
            "hours_between": hours,
        }
        inputs = {"baseline": earlier_path, "later": later_path}
        with shown_progress() as progress, contextlib.redirect_stdout(sys.stderr):  # stdout is for the result
            result = run_case(
                _TASK, inputs, "", options, device, output, progress, series=series, allow_gaps=allow_gaps
            )
        print(json.dumps(as_record(result, output), indent=1) if as_json else summary(result, output))


def _scan_and_result(given: Path, scan: Path | None, option: str) -> tuple[Path, str]:
    """(scan, result or label map; "" for none) of what was named on the command line."""
    if scan is not None:
        return scan, str(given)
    if (given / RESULT_FILE).is_file():
        raise InputError(f"The result '{given.name}' does not hold the scan it was made from; name it with {option}.")
    return given, ""
