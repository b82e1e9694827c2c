"""Train many networks that differ in recipe, values or fold, and name the best.

    python Training/sweep.py RECIPE... OUT [--folds 5 --store CASES.h5] [--set KEY=A,B] [--jobs 2 | --scheduler ADDRESS]

Each job is one run of ``train`` in a process of its own, here or on the workers of a Dask scheduler. A job that was
killed, with its worker or alone, goes on from its checkpoint; a sweep that was stopped goes on when it is run again.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
for folder in (ROOT, *(ROOT / room for room in ("Neuraxis", "HemorrhageSeg", "StrokeCTP", "SpineDiscLabel"))):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

from NeuraxisLib.atomic import atomic_write, locked  # noqa: E402
from NeuraxisLib.batch_table import write_csv  # noqa: E402
from NeuraxisLib.errors import InputError, NeuraxisError, OutputError  # noqa: E402
from NeuraxisLib.remote import is_remote, local_path  # noqa: E402
from Training.command import DONE, FAULT, SOME_LEFT_OUT, finish, run_command  # noqa: E402
from Training.logbook import LOG  # noqa: E402
from Training.sweep_jobs import SweepJob, jobs_of  # noqa: E402
from Training.sweep_process import run_training  # noqa: E402
from Training.train import add_shared  # noqa: E402

TABLE, JOB_FILE, LOCK = "sweep.csv", "job.json", "sweep.lock"
#: The file that tells the trainings of one sweep, wherever they run, to save and stop.
_STOP = "stop-{}"

EPILOG = """\
OUT gets a model file and a run folder for each job, and sweep.csv: one row per job with its scores, those of the best
setting marked. Run the same command again after a stop, and it goes on; failed jobs are tried again.

examples:
  python Training/sweep.py hemorrhage_unet2d runs/folds --store cases.h5 --folds 5
  python Training/sweep.py unet.toml drunet.toml runs/both --store cases.h5 --set fitting.learning_rate=1e-3,3e-4
  python Training/sweep.py unet.toml runs/folds --store cases.h5 --folds 5 --scheduler tcp://head-node:8786
"""


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line; ``shared`` holds the options of ``train`` that were given."""
    parser = argparse.ArgumentParser(
        prog="sweep.py",
        description="Train from each recipe with each combination of values on each fold; compare the scores.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("recipes", type=Path, nargs="+", metavar="RECIPE", help="TOML recipe, or the name of one that comes along")
    add("output", metavar="OUT", help="folder of the sweep; on a cluster one that all workers reach")
    add(
        "--folds", type=int, metavar="K", help="judge on each of the splits fold0 ... of the store, train on the others"
    )
    add("--set", action="append", default=[], metavar="SECTION.KEY=VALUE[,VALUE]",
        help="values to try; repeatable, every combination is a job")  # fmt: skip
    add("--jobs", type=int, default=1, metavar="N", help="trainings at once on this computer (default: %(default)s)")
    add("--scheduler", default="", metavar="ADDRESS", help="Dask scheduler that trains, such as tcp://host:8786")
    add("--slurm", type=Path, metavar="FILE", help="TOML or YAML file with the Slurm jobs that train")
    add("--list", action="store_true", help="only list the jobs")
    before = set(vars(parser.parse_args(["recipe", "output"])))
    group = parser.add_argument_group("of every run, as 'train' takes them")
    add_shared(_without_default(group.add_argument))
    options = parser.parse_args(arguments)
    options.shared = {name: value for name, value in vars(options).items() if name not in before}
    return options


def _without_default(add: Callable[..., Any]) -> Callable[..., Any]:
    """What is not given is left to the computer that trains."""

    def added(*names: str, **settings: Any) -> Any:
        text = settings["help"].replace(", here %(default)s", "") % {"default": settings.get("default")}
        return add(*names, **{**settings, "default": argparse.SUPPRESS, "help": text.replace("%", "%%")})

    return added


def main(arguments: list[str]) -> int:
    """Run; returns the exit status.

    0 done, 1 a fault told in one sentence or no job done, 2 a command line that cannot be read, 3 some jobs failed,
    130 stopped by Ctrl-C.
    """
    return run_command(parse, sweep, arguments)


def sweep(options: argparse.Namespace) -> int:
    """Run the jobs that are not done, write the table, name the best; the exit status."""
    if is_remote(options.output):
        raise InputError(
            "A sweep keeps checkpoints in OUT, so it needs a folder, on a cluster one that all workers reach."
        )
    jobs = jobs_of(options, options.shared)
    if options.list:
        print("\n".join(job.name for job in jobs))
        return DONE
    output = local_path(options.output).absolute()
    with _held(output):
        ended = {job.name: _done(job, output) for job in jobs}
        try:
            _run([job for job in jobs if ended[job.name] is None], output, options, ended)
        finally:
            rows = [_row(job, ended[job.name] or Ended("not done"), output) for job in jobs]
            best = _mark_best(jobs, rows)
            write_csv(output / TABLE, _heads(rows), rows)
    failed = [row for row in rows if row["status"] != "done"]
    print(f"{len(rows) - len(failed)} of {len(rows)} jobs are done{f', {len(failed)} failed' if failed else ''}.")
    if best:
        print(best)
    print(f"Table: {output / TABLE}")
    return DONE if not failed else SOME_LEFT_OUT if len(failed) < len(rows) else FAULT


@dataclass(frozen=True)
class Ended:
    """How a job ended: "done", "failed" or "not done", why it failed, and its scores."""

    status: str
    error: str = ""
    scores: dict[str, float] = field(default_factory=dict)


@contextmanager
def _held(output: Path) -> Iterator[None]:
    """Make the folder and keep other sweeps out of it; OutputError if one is there."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        file = open(output / LOCK, "a+b")  # noqa: SIM115 - closed below
    except OSError as error:
        reason = (error.strerror or "unknown fault").lower()
        raise OutputError(f"The folder '{output.name}' cannot be written to ({reason}); choose another.") from error
    try:
        if not locked(file):
            raise OutputError(
                f"Another sweep is writing to '{output.name}'; wait for its end or choose another folder."
            )
        yield
    finally:
        file.close()


# -- running ----------------------------------------------------------------------------------------------------------


def _run(jobs: list[SweepJob], output: Path, options: argparse.Namespace, ended: dict[str, Ended | None]) -> None:
    """Run jobs; ``ended`` gets each as it ends. Ctrl-C lets what is under way save, and comes through."""
    if not jobs:
        return
    for earlier in output.glob(_STOP.format("*")):
        earlier.unlink(missing_ok=True)
    stop = output / _STOP.format(uuid.uuid4().hex[:8])
    with _executor(options) as (pool, in_words):
        futures: dict[Future, SweepJob] = {
            pool.submit(run_training, job.command(output), str(job.run(output)), str(stop)): job for job in jobs
        }
        try:
            for future in as_completed(futures):
                job = futures[future]
                ended[job.name] = _ended(job, future, output, in_words)
                _say(job, ended[job.name], sum(end is not None for end in ended.values()), len(ended))
        except KeyboardInterrupt:
            stop.touch()
            for future in futures:
                future.cancel()
            print("Stopping; what is under way is saved.", file=sys.stderr)
            raise
    stop.unlink(missing_ok=True)


@contextmanager
def _executor(options: argparse.Namespace) -> Iterator[tuple[Executor, Callable[[BaseException], NeuraxisError]]]:
    """What runs the jobs, on this computer or on a cluster, and what says its faults in words."""
    from NeuraxisLib.process import as_user_error

    if options.scheduler and options.slurm:
        raise InputError("Give --scheduler or --slurm, not both.")
    if not options.scheduler and not options.slurm:
        with ThreadPoolExecutor(max(options.jobs, 1)) as pool:
            yield pool, as_user_error
        return
    from NeuraxisLib.batch_dask import connected, in_words
    from NeuraxisLib.batch_slurm import slurm_cluster

    cluster = slurm_cluster(options.slurm) if options.slurm else None
    try:
        with connected(cluster or options.scheduler) as client:
            resources = _resources(client, options.shared.get("device", "auto"))
            with client.get_executor(pure=False, resources=resources) as pool:
                yield pool, lambda error: in_words(error, "training")
    finally:
        if cluster is not None:
            cluster.close()


def _resources(client: Any, device: str) -> dict[str, int] | None:
    """What each job asks of a worker: a graphics card where there are some; waits for the first worker."""
    from NeuraxisLib.batch_dask import places

    while not (found := places(client, device))[0]:
        print("Waiting for a worker to join the scheduler", file=sys.stderr)
        time.sleep(2)
    return found[1] or None


def _ended(job: SweepJob, future: Future, output: Path, in_words: Callable[[BaseException], NeuraxisError]) -> Ended:
    """How a job ended, kept in its run folder for the next time."""
    try:
        status, error = future.result()
    except KeyboardInterrupt:
        raise
    except BaseException as fault:  # concurrent.futures and Dask cancel with exceptions of several kinds
        status, error = FAULT, str(in_words(fault))
    if status != DONE:
        return Ended("failed", error)
    with atomic_write(job.run(output) / JOB_FILE) as temporary:
        temporary.write_text(json.dumps({"mark": job.mark, "scores": _scores(job, output)}), encoding="utf-8")
    return _done(job, output) or Ended("failed", "The model file is gone; run the sweep again.")


def _done(job: SweepJob, output: Path) -> Ended | None:
    """A job that was done before, as the same training; None otherwise."""
    try:
        kept = json.loads((job.run(output) / JOB_FILE).read_text(encoding="utf-8"))
        same = kept["mark"] == job.mark and job.model(output).is_file()
        return Ended("done", scores=dict(kept["scores"])) if same else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _scores(job: SweepJob, output: Path) -> dict[str, float]:
    """The scores of the weights that were kept: those of the best validation; steps and seconds of the run."""
    lines = (job.run(output) / LOG).read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    judged = [record for record in records if record.get("score") is not None]
    best = max(judged, key=lambda record: record["score"], default={})
    scores = {name: value for name, value in best.items() if name != "step" and isinstance(value, (int, float))}
    seconds = [record["seconds"] for record in records if "seconds" in record]
    return {**scores, "best_step": best.get("step", 0), "seconds": seconds[-1] if seconds else 0.0}


def _say(job: SweepJob, end: Ended, number: int, count: int) -> None:
    score = f"score {end.scores['score']:.4f}" if "score" in end.scores else "done"
    print(f"{number} of {count} {job.name}: {end.error or score}", file=sys.stderr)


# -- the table --------------------------------------------------------------------------------------------------------


def _row(job: SweepJob, end: Ended, output: Path) -> dict[str, Any]:
    return {
        "job": job.name,
        "recipe": job.recipe,
        **job.values,
        "fold": job.fold,
        "status": end.status,
        "error": end.error or None,
        "mean_score": None,
        "best": None,
        **end.scores,
        "model": job.model(output).name if end.status == "done" else None,
    }


def _heads(rows: list[dict[str, Any]]) -> dict[str, type]:
    """The columns of all rows, in their order; the file of the model last."""
    heads = {name: str for row in rows for name in row if name != "model"}
    return {**heads, "model": str}


def _mark_best(jobs: list[SweepJob], rows: list[dict[str, Any]]) -> str:
    """Fill in the means over folds and the best setting; a sentence that names it, empty if no setting is whole."""
    settings: dict[str, list[dict[str, Any]]] = {}
    for job, row in zip(jobs, rows):
        settings.setdefault(job.setting, []).append(row)
    means = {}
    for setting, own in settings.items():
        if all(row["status"] == "done" and row.get("score") is not None for row in own):
            means[setting] = sum(row["score"] for row in own) / len(own)
            for row in own:
                row["mean_score"] = means[setting]
    if not means:
        return ""
    best = max(means, key=means.get)
    for row in settings[best]:
        row["best"] = "yes"
    scores = [row["score"] for row in settings[best]]
    folds = f", mean of {len(scores)} folds, {min(scores):.4f} to {max(scores):.4f}" if len(scores) > 1 else ""
    return f"Best: {best} (score {means[best]:.4f}{folds})."


if __name__ == "__main__":
    finish(main(sys.argv[1:]))
