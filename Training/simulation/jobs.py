"""Filling the bank in several processes. A file of its own, because other processes must be able to import it."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

from NeuraxisLib.preprocessing import SlicePreprocessing
from NeuraxisLib.task import Progress
from Training.pool import results
from Training.recipe import Recipe
from Training.simulation.bank import HeadSources, fill, fill_real

#: (bank, real scans, label maps, lesion shapes, preprocessing of the bank, source, number); the number of "real" says
#: nothing.
Job = tuple[Path, Path, Path, "Path | None", SlicePreprocessing, str, int]


def jobs_of(bank: Path, real: Path, label_maps: Path, recipe: Recipe, shapes: Path | None = None) -> list[Job]:
    """What has to be made before the recipe can be fitted; empty when the bank is complete."""
    preprocessing = replace(recipe.preprocessing, size=recipe["simulation"]["bank_size"])
    wanted = [("real", 0)] if recipe["fitting"]["shares"].get("real") else []
    for source in ("planted", "synthetic"):
        numbers = range(recipe["simulation"][source])
        wanted += [(source, n) for n in numbers if not (bank / f"{source}_{n:05d}.npz").exists()]
    return [(bank, real, label_maps, shapes, preprocessing, source, number) for source, number in wanted]


def fill_bank(
    bank: Path,
    real: Path,
    label_maps: Path,
    recipe: Recipe,
    workers: int,
    progress: Progress,
    shapes: Path | None = None,
) -> None:
    """Make the heads that a bank lacks.

    Args:
        bank: folder of the bank; must exist.
        real: real head CTs with their labels. label_maps: whole-head label maps.
        recipe: says how many heads of each source, and their size.
        workers: processes; 1 computes here.
        progress: told after every head.
        shapes: masks of real lesions whose shapes some bleeds take.

    Raises:
        InputError: the folders lack what the recipe asks for.
        WorkerError: a process died, most often for want of memory.
    """
    jobs = jobs_of(bank, real, label_maps, recipe, shapes)
    for done, _ in enumerate(results(run_job, [(job,) for job in jobs], workers), start=1):
        progress(done / len(jobs), f"simulated {done} of {len(jobs)} heads")


def run_job(job: Job) -> None:
    """Make one head of the bank, or put all real scans into it."""
    bank, real, label_maps, shapes, preprocessing, source, number = job
    sources = _sources(real, label_maps, shapes)
    if source == "real":
        fill_real(bank, sources, preprocessing)
    else:
        fill(bank, sources, preprocessing, source, range(number, number + 1))


@cache
def _sources(real: Path, label_maps: Path, shapes: Path | None) -> HeadSources:
    """The scans and their anatomy, read once per process."""
    return HeadSources(real, label_maps, shapes)
