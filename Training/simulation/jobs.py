"""Filling the bank in several processes. A file of its own, because other processes must be able to import it."""

from __future__ import annotations

import multiprocessing
import shutil
import signal
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from functools import cache
from pathlib import Path

from NeuraxisLib.errors import WorkerError
from NeuraxisLib.preprocessing import SlicePreprocessing
from NeuraxisLib.task import Progress
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
    if min(workers, len(jobs)) <= 1:
        for done, job in enumerate(jobs, start=1):
            run_job(job)
            progress(done / len(jobs), f"simulated {done} of {len(jobs)} heads")
        return
    context = multiprocessing.get_context("spawn")
    # Inside Slicer the running program is Slicer itself; its Python is called PythonSlicer.
    interpreter = shutil.which("PythonSlicer") if "slicer" in sys.modules else None
    if interpreter:
        context.set_executable(interpreter)
    pool = ProcessPoolExecutor(min(workers, len(jobs)), context, initializer=_leave_interrupts_to_the_parent)
    try:
        for done, future in enumerate(as_completed([pool.submit(run_job, job) for job in jobs]), start=1):
            future.result()
            progress(done / len(jobs), f"simulated {done} of {len(jobs)} heads")
    except BrokenProcessPool:
        raise WorkerError(
            "A process that simulates heads died, probably for want of memory; use fewer --workers and start again."
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


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


def _leave_interrupts_to_the_parent() -> None:
    """Ctrl-C reaches the whole group; the parent lets each process finish its head."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
