"""What is fuzzed of texts: tables, recipes, lists, ledgers and reviews, and what a worker answers."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from Testing.faults.fuzz_subjects import Subject
from Testing.faults.mutants import mutant_json, mutant_lines
from Testing.project_tree import ROOT

SUPPORT = ROOT / "Neuraxis" / "Testing" / "worker_support"


def _bare_model(path: Path) -> Path:
    """A model of the test task, which this process then knows."""
    from NeuraxisLib import task

    task.TASKS["threshold"] = "threshold_task:TASK"
    if str(SUPPORT) not in sys.path:
        sys.path.append(str(SUPPORT))
    from bare_models import write_bare_model

    return write_bare_model(path)


def _text(name: str, content: str | Path) -> Callable[[Path], Path]:
    """Writes a text, or a copy of a file, under a name."""

    def write(folder: Path) -> Path:
        path = folder / name
        path.write_text(content.read_text(encoding="utf-8") if isinstance(content, Path) else content, encoding="utf-8")
        return path

    return write


# -- the pipe from a worker, which Slicer reads ---------------------------------------------------------------------


def _write_answers(folder: Path) -> Path:
    """What a worker says during one run, and a program that says it, for :func:`_read_answers`."""
    events = [
        {"event": "ready", "pid": 4711, "version": "0.5.0"},
        {"event": "progress", "id": 1, "fraction": 0.25, "stage": "Computing"},
        {"event": "log", "message": "A line for the log."},
        {"event": "memory", "words": "3.1 GB of 8.0 GB in use"},
        {"event": "progress", "id": 1, "fraction": 0.75, "stage": "Writing"},
        {"event": "failed", "id": 1, "code": "series_choice", "message": "Choose one.", "choices": [{"key": "1"}]},
    ]  # fmt: skip
    (folder / "answers.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    (folder / "worker").write_text('#!/bin/sh\nexec cat "$(dirname "$0")/answers.jsonl"\n')
    (folder / "worker").chmod(0o700)
    return folder / "answers.jsonl"


def _read_answers(path: Path) -> tuple[str, str, float, str]:
    """How a run ends for the host, as Slicer's timer and panel meet it."""
    from NeuraxisLib.errors import NeuraxisError
    from NeuraxisLib.worker_client import WorkerClient
    from NeuraxisLib.worker_job import Job

    seen: list[tuple[float, str]] = []
    client = WorkerClient(python=path.with_name("worker"), threads=1)
    try:
        job = Job("hemorrhage", {"ct": path.with_name("none.nrrd")}, output=path.with_name("out"))
        handle = client.run(job, on_progress=lambda fraction, stage: seen.append((fraction, stage)))
        try:
            client.wait(handle, timeout=8)
            sentence = ""
        except NeuraxisError as error:
            sentence = str(error)
        known = [fraction for fraction, _ in seen]
        return handle.state, sentence, min([0.0, *known]) + max([0.0, *known]), client.log_text
    finally:
        client.stop()


def _wrong_answers(good: Any, found: Any) -> str:
    state, sentence, fractions, _ = found
    if state not in ("done", "failed", "cancelled"):
        return f"state {state}"
    if not 0 <= fractions <= 1:
        return "progress beyond its range"
    return "" if state == "done" or (sentence and "\n" not in sentence) else f"no sentence: {sentence}"


# -- a batch --------------------------------------------------------------------------------------------------------


def _write_batch(file: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        _bare_model(folder / "bright.safetensors")
        from batch_support import write_scan

        scans = [write_scan(folder / "scans" / f"{name}.nrrd", count) for name, count in (("one", 10), ("two", 20))]
        _run_batch(folder, scans)
        shutil.copytree(folder / "out", folder / "good")
        return folder / "out" / file

    return write


def _run_batch(folder: Path, scans: list[Path]) -> Any:
    from batch_support import InlineWorkers

    from NeuraxisLib.batch import Batch
    from NeuraxisLib.batch_cases import cases_of_files
    from NeuraxisLib.task import get_task

    cases = cases_of_files(scans, get_task("threshold"))
    batch = Batch("threshold", cases, folder / "out", InlineWorkers(), model=str(folder / "bright.safetensors"))
    try:
        batch.wait()  # which writes the tables and the report
        return batch
    finally:
        batch.close()


def _read_batch(path: Path) -> tuple:
    """A rerun in a folder of which one file is the mutant; the rest is made whole again afterwards."""
    folder = next(parent for parent in path.parents if (parent / "good").is_dir())
    if path.name == "result.json":  # as after a kill between the result and its line in the ledger
        (folder / "out" / "batch.jsonl").write_bytes(b"")
    try:
        batch = _run_batch(folder, sorted((folder / "scans").glob("*.nrrd")))
        volumes = [entry.record.get("values", {}).get("Total volume [mL]") for entry in batch.entries]
        inside = all(entry.folder.parent == folder / "out" for entry in batch.entries)
        return [entry.status for entry in batch.entries], volumes, inside, batch.notes
    finally:
        shutil.rmtree(folder / "out", ignore_errors=True)
        shutil.copytree(folder / "good", folder / "out")


def _wrong_batch(good: tuple, found: tuple) -> str:
    if not set(found[0]) <= {"done", "failed"}:
        return f"cases are {found[0]}"
    if not found[2]:
        return "a result outside the output folder"
    return f"notes {found[3]}" if found[3] else ""


def _read_cases(path: Path) -> Any:
    from NeuraxisLib.batch_cases import cases_of_csv, folder_names, merged_options
    from NeuraxisLib.batch_entry import recipe
    from NeuraxisLib.task import get_task

    task = get_task("hemorrhage")
    cases = cases_of_csv(path, task)
    folder_names(case.name for case in cases)
    return [recipe(task, "", merged_options(case, {}), case.series, False) for case in cases]


def _read_cluster(path: Path) -> Any:
    from NeuraxisLib.batch_slurm import read_settings

    return read_settings(path)


_CASES = """case,ct,series,min_component_ml,_note
one,a/one.nii.gz,,0.1,first
two,"a/t,wo.nrrd",3,0,"a ""quoted"" word"
three,b/three,1.2.3,,
"""
_CLUSTER = {"queue": "gpu", "cores": 4, "memory": "32GB", "walltime": "02:00:00", "jobs": 8, "gpus": 1,
            "job_script_prologue": ["source activate", "module load x"]}  # fmt: skip

# -- reviews, lists of models, times --------------------------------------------------------------------------------


def _write_review(folder: Path) -> Path:
    from NeuraxisLib.review import new_review, write_review

    (folder / "result.json").write_text("{}")
    return write_review(folder, new_review("corrected", "0" * 64, "A comment.", "AB"))


def _read_review(path: Path) -> Any:
    from NeuraxisLib.review import read_review

    return read_review(path.parent)


def _write_index(folder: Path) -> Path:
    from NeuraxisLib.model_index import INDEX_FILE

    document = json.loads(INDEX_FILE.read_text(encoding="utf-8"))
    document["models"] = [{**model, "url": "https://example.org/m"} for model in document["models"][:2]]
    (folder / "models.json").write_text(json.dumps(document))
    return folder / "models.json"


def _read_index(path: Path) -> Any:
    from NeuraxisLib.model_index import parse_index

    return [entry.card for entry in parse_index(path.read_bytes(), "https://example.org/models.json")]


def _read_times(path: Path) -> Any:
    from StrokeCTPLib.times_file import fit_times, read_times

    return fit_times(read_times(path), (4, 2), path.name)


_BIDS_TIMES = '{"VolumeTiming": [0.0, 1.5, 3.0, 4.5], "SliceTiming": [0.0, 0.2]}'
_TABLE_TIMES = "# CT perfusion\nframe;time_a_ms;time_b_ms\n1;0;200\n2;1500;1700\n3;3000;3200\n4;4500;4700\n"

# -- training -------------------------------------------------------------------------------------------------------


def _read_recipe(path: Path) -> Any:
    from Training.recipe import Recipe

    recipe = Recipe.read(path)
    return recipe.preprocessing, json.dumps(recipe.data, default=str)


def _read_training_table(path: Path) -> Any:
    from Training.layouts import get_layout
    from Training.layouts.base import LayoutOptions

    found = get_layout("csv").find(path, LayoutOptions())
    return [source.paths() for source in found.sources]


def _read_list(path: Path) -> Any:
    from Training.layouts.hemseg import read_annotations

    return read_annotations(path)


_TRAINING = "id;image;truth;patient;split;bleeding_slices\na;a.nii;a_m.nii;p;train;1 2\nb;b.nii;;q;val;\n"
_HEMSEG = (
    '{"patient": "p1", "scan_": "s1", "slice_list": ["ID_a", "ID_b"]}\n'
    '{"patient_name": "p2", "scan_name": "s2", "slice_list": {"0": "ID_c"}}\n'
)

TEXTS: dict[str, Subject] = {
    "answers": Subject(_write_answers, _read_answers, _wrong_answers, damage=mutant_lines),
    "ledger": Subject(_write_batch("batch.jsonl"), _read_batch, _wrong_batch, damage=mutant_lines),
    "batch-result": Subject(_write_batch("one/result.json"), _read_batch, _wrong_batch, damage=mutant_json),
    "case-table": Subject(_text("cases.csv", _CASES), _read_cases),
    "cluster-toml": Subject(
        _text("cluster.toml", "".join(f"{name} = {json.dumps(value)}\n" for name, value in _CLUSTER.items())),
        _read_cluster,
    ),
    "cluster-yaml": Subject(
        _text("cluster.yaml", "".join(f"{name}: {json.dumps(value)}\n" for name, value in _CLUSTER.items())),
        _read_cluster,
    ),
    "review": Subject(_write_review, _read_review, damage=mutant_json),
    "model-index": Subject(_write_index, _read_index, damage=mutant_json),
    "times-json": Subject(_text("times.json", _BIDS_TIMES), _read_times, damage=mutant_json),
    "times-csv": Subject(_text("times.csv", _TABLE_TIMES), _read_times),
    "recipe": Subject(
        _text("recipe.toml", ROOT / "Training" / "recipes" / "hemorrhage_drunet_starter.toml"), _read_recipe,
        header_bytes=4000,
    ),
    "training-table": Subject(_text("cases.csv", _TRAINING), _read_training_table),
    "training-list": Subject(_text("list.jsonl", _HEMSEG), _read_list, damage=mutant_lines),
}  # fmt: skip
