"""Simulated strokes as files: what ``simulate --stroke`` writes, one case after the other.

frames/NAME.nrrd            the acquisition, a sequence that Slicer and ``neuraxis stroke`` read
frames/NAME_times.csv       times of every slice, where the slices of a frame differ
truth/NAME.nrrd             1 hypoperfused outside the core, 2 core
truth_maps/NAME/*.nrrd      true CBF, CBV, MTT, delay
maps/NAME/*.nrrd            maps of our own chain, which networks are trained on
facts.csv                   what was drawn for every case; cases.csv is the table that prepare reads
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from NeuraxisLib.atomic import atomic_write
from NeuraxisLib.errors import InputError
from NeuraxisLib.files import write_volume
from Training.simulation.ctp_anatomy import StrokeSources
from Training.simulation.ctp_head import SimulatedStroke, StrokeOptions, simulate_stroke

#: What may be written of a case, beside its truth.
CONTENTS = ("frames", "maps", "both")
#: Maps of our chain that are written, and their unit.
MAPS = {"cbf": "mL/100 g/min", "cbv": "mL/100 g", "mtt": "s", "tmax": "s", "ttp": "s"}
TRUE_MAPS = {"cbf": "mL/100 g/min", "cbv": "mL/100 g", "mtt": "s", "delay": "s"}
#: Groups of the stroke networks: large vessel occlusion, another stroke, without one.
GROUPS = {"m1": "LVO", "m2_superior": "LVO", "m2_inferior": "LVO", "none": "WIS"}
#: Number of the strokes among the sources that a seed is made of.
STROKE_SOURCE = 3


@dataclass(frozen=True)
class StrokePlan:
    """One case to make: its name, the seed of its random numbers, the label map it is made from."""

    name: str
    seed: tuple[int, ...]
    head: int
    patient: str


@dataclass(frozen=True)
class StrokeFiles:
    """Where cases are written and how.

    Attributes:
        folder: of all. content: one of CONTENTS. options: of every case. label_maps, atlas, infarcts: sources.
    """

    folder: Path
    content: str
    options: StrokeOptions
    label_maps: Path
    atlas: Path
    infarcts: Path | None


def plan_strokes(sources: StrokeSources, count: int, seed: int) -> list[StrokePlan]:
    """Cases whose label maps take turns, so that every split has its share of anatomies."""
    plans = []
    for number in range(count):
        head = number % len(sources.maps)
        patient = sources.maps[head].name.split(".")[0]
        plans.append(StrokePlan(f"stroke_{number:05d}", (seed, STROKE_SOURCE, number), head, patient))
    return plans


def make_stroke(plan: StrokePlan, files: StrokeFiles) -> None:
    """Simulate one case and write it; its facts come last and stand for the whole."""
    sources = sources_of(files.label_maps, files.atlas, files.infarcts)
    case = simulate_stroke(sources, np.random.default_rng(plan.seed), replace(files.options, head=plan.head))
    grid = case.frames
    if files.content in ("frames", "both"):
        path = files.folder / "frames" / f"{plan.name}.nrrd"
        path.parent.mkdir(exist_ok=True)
        write_volume(grid, path, compress=True)
        if np.ptp(case.times_s, axis=1).max() > 0:
            _write_times(case.times_s, path.with_name(f"{plan.name}_times.csv"))
    if files.content in ("maps", "both"):
        _write_maps(case, files.folder / "maps" / plan.name)
    _write(files.folder / "truth_maps" / plan.name, case, case.maps, TRUE_MAPS, case.brain)
    truth = files.folder / "truth" / f"{plan.name}.nrrd"
    truth.parent.mkdir(exist_ok=True)
    write_volume(grid.like(case.labels), truth, compress=True)
    facts = files.folder / "facts" / f"{plan.name}.csv"
    facts.parent.mkdir(exist_ok=True)
    _write_rows(facts, [{"id": plan.name, **case.facts}])


def _write_maps(case: SimulatedStroke, folder: Path) -> None:
    """The maps that the stroke task shows to networks: by deconvolution, NaN outside the tissue."""
    from NeuraxisLib.task import Progress
    from StrokeCTPLib.frames import make_frames
    from StrokeCTPLib.study import maps_for, study_of
    from StrokeCTPLib.task import StrokeOptions as TaskOptions

    frames = make_frames(case.frames, case.times_s, "a simulated acquisition", "the simulation", {}, [])
    options = TaskOptions(device="cpu")
    maps = maps_for(study_of(frames, options, "cpu", Progress()), options, Progress())
    _write(folder, case, maps.svd, MAPS, maps.tissue)


def _write(
    folder: Path, case: SimulatedStroke, maps: dict[str, np.ndarray], units: dict[str, str], inside: np.ndarray
) -> None:
    """Maps as files named after them, NaN where not ``inside``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, unit in units.items():
        values = np.where(inside, maps[name], np.nan).astype(np.float32)
        write_volume(case.frames.like(values, unit), folder / f"{name}.nrrd", compress=True)


def _write_times(times_s: np.ndarray, path: Path) -> None:
    with atomic_write(path) as temporary:
        np.savetxt(temporary, times_s, fmt="%.4f", delimiter=",")


def _write_rows(path: Path, rows: list[dict]) -> None:
    with atomic_write(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def is_there(plan: StrokePlan, folder: Path) -> bool:
    """Whether a case was written whole."""
    return (folder / "facts" / f"{plan.name}.csv").exists()


def write_tables(folder: Path, content: str, plans: list[StrokePlan], splits: list[str]) -> int:
    """The table that prepare reads and that of the facts, of the cases that are there; returns how many."""
    rows, facts = [], []
    for made, split in zip(plans, splits):
        if not is_there(made, folder):
            continue
        with open(folder / "facts" / f"{made.name}.csv", newline="", encoding="utf-8") as stream:
            facts.append(next(csv.DictReader(stream)))
        row = {"id": made.name, "truth": f"truth/{made.name}.nrrd", "patient": made.patient}
        row |= {"group": GROUPS.get(facts[-1]["kind"], "Non-LVO"), "split": split, "simulated": "1"}
        if content in ("maps", "both"):
            row["maps"] = f"maps/{made.name}"
        if content in ("frames", "both"):
            row["frames"] = f"frames/{made.name}.nrrd"
        rows.append(row)
    if rows:
        _write_rows(folder / "cases.csv", rows)
        _write_rows(folder / "facts.csv", facts)
    return len(rows)


@cache
def sources_of(label_maps: Path, atlas: Path, infarcts: Path | None) -> StrokeSources:
    """The label maps, atlas and infarcts, read once per process."""
    if not atlas.is_file():
        raise InputError(f"The atlas of arterial territories '{atlas.name}' was not found; name it with --atlas.")
    return StrokeSources(label_maps, atlas, infarcts if infarcts and infarcts.is_dir() else None)
