"""Ours and the peers a user would pick, in turn in one process tree; one table for the documentation.

    python Testing/benchmarks/table.py [--only ROW ...] [--keep] [--quick] [--rounds 3] [--output Docs/benchmarks.md]

Writes the table as Markdown and, beside it, as JSON, after every row, so that a run that is stopped has lost no row.
``--keep`` leaves the rows that the JSON holds and measures the others; ``--only`` measures the named rows, again where
they are there, and leaves all others. ``--quick`` takes small inputs and one round: it shows that everything runs, and
its times say nothing. Exit status 1 if a row could not be measured, or a peer was faster than ours.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROOMS = [ROOT, *(ROOT / room for room in ("Neuraxis", "HemorrhageSeg", "StrokeCTP", "SpineDiscLabel"))]
ROOMS += [ROOT / "Testing", ROOT / "Testing" / "benchmarks", ROOT / "StrokeCTP" / "Testing"]
sys.path[:0] = [str(room) for room in ROOMS if str(room) not in sys.path]

from NeuraxisLib.atomic import atomic_write  # noqa: E402
from Testing.benchmarks import page, results, rows_data, rows_networks, rows_scaling  # noqa: E402
from Testing.benchmarks.results import Row, Settings  # noqa: E402

ROWS: dict[str, Callable[[Settings], Row]] = {
    "roofline": rows_networks.limits,
    "drunet": rows_networks.drunet,
    "slexnet": rows_networks.slexnet,
    "nnunet": rows_networks.nnunet,
    "stroke": rows_networks.stroke,
    "discs": rows_networks.discs,
    "perfusion": rows_data.perfusion,
    "naming": rows_data.naming,
    "dicom": rows_data.dicom,
    "patches": rows_data.patches,
    "metrics": rows_data.metrics,
    "training": rows_data.training,
    "startup": rows_data.startup,
    "doors": rows_scaling.doors,
    "slices": rows_scaling.slices,
    "batch": rows_scaling.batch,
    "overlap": rows_scaling.overlap,
}
PACKAGES = ("torch", "numpy", "scipy", "monai", "nnunetv2", "SimpleITK", "pydicom", "scikit-image", "h5py")


def machine() -> dict[str, str]:
    """What it was measured on, and with which versions."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return {
        "Machine": f"{name}, {os.cpu_count()} cores, {platform.system()}",
        "Versions": f"Python {platform.python_version()}, {', '.join(found)}",
        "Written": now(),
    }


def now() -> str:
    """The time to the minute."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")


def load() -> str:
    """How many processes wanted a core in the last minute."""
    return f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "-"


def measure(key: str, settings: Settings) -> Row:
    """One row, with when and under which load."""
    before, began = load(), time.monotonic()
    with tempfile.TemporaryDirectory(dir=settings.folder) as name:
        row = ROWS[key](Settings(settings.quick, settings.rounds, settings.threads, Path(name), settings.say))
    row.made, row.load, row.quick = now(), f"{before}, {load()}", settings.quick
    settings.say(f"{key}: {time.monotonic() - began:.0f} s")
    for one in row.comparisons:
        for name in one.peers():
            wall, cpu = one.ratios(name)
            settings.say(f"  {one.what}: {name} takes {wall:.2f} times as long as ours, {cpu:.2f} by processor time")
    return row


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of a command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=ROWS, metavar="ROW", help=f"of: {', '.join(ROWS)}")
    parser.add_argument("--keep", action="store_true", help="measure only what the JSON does not hold")
    parser.add_argument("--quick", action="store_true", help="small inputs, one round")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each contender")
    parser.add_argument("--threads", type=int, default=1, help="of each contender")
    parser.add_argument(
        "--output", type=Path, default=ROOT / "Docs" / "benchmarks.md", help="the page; the JSON lies beside"
    )
    return parser.parse_args(arguments)


def write(rows: dict[str, Row], output: Path) -> None:
    """The page and the JSON, rows in the order of :data:`ROWS`."""
    rows = {key: rows[key] for key in ROWS if key in rows}
    results.save(output.with_suffix(".json"), rows, machine())
    with atomic_write(output) as temporary:
        temporary.write_text(page.markdown(rows, machine()), encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is asked for and write the page; the exit status."""
    options = parse(arguments)
    rows = results.load(options.output.with_suffix(".json")) if options.keep or options.only else {}
    wanted = options.only or [key for key in ROWS if key not in rows]
    failed, began = [], time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        rounds = 1 if options.quick else options.rounds

        def say(words: str) -> None:
            print(f"[{time.monotonic() - began:5.0f} s] {words}", flush=True)

        settings = Settings(options.quick, rounds, options.threads, Path(name), say)
        for key in wanted:
            say(f"{key} ...")
            try:
                rows[key] = measure(key, settings)
            except Exception as error:  # one row that cannot be measured stops no other
                failed.append(key)
                say(f"{key} failed: {type(error).__name__}: {error}")
                continue
            write(rows, options.output)
    print(f"{options.output}: {len(rows)} rows" + (f"; not measured: {', '.join(failed)}" if failed else ""))
    return 1 if failed or list(page.below(rows)) else 0


if __name__ == "__main__":
    sys.exit(main())
