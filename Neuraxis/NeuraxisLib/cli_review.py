"""``neuraxis review``: verdicts of readers on results, and reviewed cases as training data."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from NeuraxisLib.cli_process import faults_reported, prepare_process
from NeuraxisLib.review import ReviewedCase, result_folders, reviewed_case

_Results = Annotated[
    Path,
    typer.Argument(help="Result folder, or folder that holds some.", metavar="FOLDER", show_default=False),
]
_Json = Annotated[bool, typer.Option("--json", help="Print as JSON.")]


def review_group() -> typer.Typer:
    """The commands under ``neuraxis review``."""
    group = typer.Typer(
        help="Verdicts of readers on results: list them, export reviewed cases as training data.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    group.command("list")(list_reviews)
    group.command("export")(export_reviewed)
    return group


def list_reviews(folder: _Results, as_json: _Json = False) -> None:
    """List the results in a folder with the verdict on each."""
    with faults_reported(as_json):
        cases = [reviewed_case(path) for path in result_folders(folder)]
        print(json.dumps([_record(case) for case in cases], indent=1) if as_json else _page(cases))


def export_reviewed(
    folder: _Results,
    output: Annotated[
        Path, typer.Argument(help="Folder for the training data; new or empty.", metavar="OUT", show_default=False)
    ],
    images: Annotated[
        Path | None,
        typer.Option(
            "--images",
            help="What the results were computed from: the folder or table that the batch was given, or the one image. "
            "Stroke needs none.",
            show_default=False,
        ),
    ] = None,
    as_json: _Json = False,
) -> None:
    """Write accepted and corrected cases as 'prepare' reads them, with the outlines as they were left."""
    with faults_reported(as_json):
        prepare_process(None, hide_gpu=True)
        from NeuraxisLib.review_export import cases_of, export_cases, prepare_command

        done = export_cases(cases_of(result_folders(folder), images), output)
        for name, reason in done.left_out.items():
            print(f"Left out '{name}': {reason}", file=sys.stderr)
        commands = [prepare_command(task, layout) for task, layout in done.layouts.items()]
        if as_json:
            record = {"written": dict(done.written), "left_out": done.left_out, "prepare": commands}
            print(json.dumps(record, indent=1))
        else:
            print("\n".join([done.summary(), *(f"In '{output.name}': {command}" for command in commands)]))


def _record(case: ReviewedCase) -> dict:
    review = None if case.review is None else {**asdict(case.review), "is_current": case.is_current}
    return {"case": case.folder.name, "task": case.task, "review": review, "error": case.error}


def _page(cases: list[ReviewedCase]) -> str:
    width = max(len(case.folder.name) for case in cases)
    lines = [f"{case.folder.name:<{width}}  {_words(case)}" for case in cases]
    open_cases = sum(case.review is None and not case.error for case in cases)
    return "\n".join([*lines, f"{len(cases)} results, {open_cases} without a verdict."])


def _words(case: ReviewedCase) -> str:
    if case.error:
        return case.error
    if case.review is None:
        return "not reviewed"
    review = case.review
    stale = "" if case.is_current else "; the result was changed after it"
    by = f" by {review.reader}" if review.reader else ""
    comment = f": {review.comment}" if review.comment else ""
    return f"{review.verdict}{by}, {review.time}{stale}{comment}"
