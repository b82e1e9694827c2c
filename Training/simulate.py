"""Write simulated head CTs, CT perfusion series or spine MR with their exact truth, in a form that prepare reads.

    python Training/simulate.py FOLDER --planted 40 --synthetic 20 --seed 7
    python Training/simulate.py FOLDER --stroke 10
    python Training/simulate.py FOLDER --spines 10
    Slicer --no-main-window --python-script Training/simulate.py -- FOLDER --synthetic 20

FOLDER/images, truth and region hold one file per case, FOLDER/cases.csv lists them; what --stroke writes stands in
Training/strokes.py. The same seed gives the same heads. A case is there whole or not at all; start the same command
again after a stop and it makes the rest, or with larger numbers and it makes more.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parent.parent
for folder in (ROOT, *(ROOT / room for room in ("Neuraxis", "HemorrhageSeg", "StrokeCTP", "SpineDiscLabel"))):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

import numpy as np  # noqa: E402

from NeuraxisLib import __version__  # noqa: E402
from NeuraxisLib.atomic import atomic_write, output_error  # noqa: E402
from NeuraxisLib.errors import InputError  # noqa: E402
from NeuraxisLib.process import usable_cores  # noqa: E402
from Training.command import finish, run_command  # noqa: E402
from Training.progress import ProgressLine  # noqa: E402

if TYPE_CHECKING:
    from Training.simulation.bank import HeadSources
    from Training.simulation.head_ct import SimulatedHead

#: Label maps and atlas that come with the source tree.
SAMPLE_ANATOMY = ROOT / "Training" / "SampleAnatomy"
ATLAS = "ArterialAtlas136.nii.gz"
SOURCES = {"planted": 1, "synthetic": 2}
FORMATS = ("nrrd", "nii.gz")
TABLE, SETTINGS = "cases.csv", "simulate.json"
COLUMNS = ("id", "image", "truth", "region", "patient", "group", "split")
#: Heads that may be drawn for one case until one has a brain in view (and, for NIfTI, no tilt).
MOST_DRAWN = 50

EPILOG = """\
Splits go by patient: all heads that were made from one real scan or one label map lie in the same one. Labels of the
truth of bleeds: 1 intraparenchymal, 2 intraventricular, 3 subdural, 4 epidural, 5 subarachnoid; of strokes: 1
hypoperfused outside the core, 2 core.

examples:
  python Training/simulate.py simulated --planted 60 --synthetic 20
  python Training/prepare.py simulated/cases.csv cases.h5
  python Training/simulate.py strokes --stroke 20
  python Training/simulate.py learning --stroke 110 --content maps --size 128 --still
  python Training/prepare.py learning/cases.csv maps.h5 --layout maps
  python Training/simulate.py spines --spines 40 --format nii.gz
  python Training/prepare.py spines spines.h5 --layout sct-discs --disc-points centre
"""


@dataclass(frozen=True)
class Plan:
    """One head to make.

    Attributes:
        name: of the case. source: ``"planted"`` or ``"synthetic"``. seed: of its random numbers.
        patient: the real scan or label map that it is made from.
    """

    name: str
    source: str
    seed: tuple[int, ...]
    patient: str

    def files(self, folder: Path, suffix: str) -> dict[str, Path]:
        """Column -> file of the case; the image is written last and stands for the whole."""
        places = {"truth": "truth", "region": "region", "image": "images"}
        return {column: folder / place / f"{self.name}.{suffix}" for column, place in places.items()}


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    data = Path(os.environ.get("NEURAXIS_DATA", ROOT.parent / "shared" / "data"))
    parser = argparse.ArgumentParser(
        prog="simulate.py",
        description="Write simulated head CTs, CT perfusion series or spine MR with their truth, for prepare.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("folder", type=Path, help="folder to write to; new, empty, or of an earlier run, which is gone on with")
    add("--planted", type=int, default=0, metavar="N", help="real bleed-free head CTs with bleeds drawn into them")
    add("--synthetic", type=int, default=0, metavar="N", help="whole heads made from label maps")
    add("--stroke", type=int, default=0, metavar="N", help="4-D CT perfusion series with strokes (not with the others)")
    add("--spines", type=int, default=0, metavar="N", help="sagittal spine MR of any region (not with the others)")
    add("--region", choices=("cervical", "thoracic", "lumbar", "whole"), default="",
        help="of spines (default: all in turn)")  # fmt: skip
    add("--content", choices=("frames", "maps", "both"), default="frames",
        help="of strokes, beside their truth: the frames, the maps that the stroke task makes of them, or both "
        "(default: %(default)s)")  # fmt: skip
    add("--size", type=int, default=256, metavar="PX", help="rows and columns of strokes (default: %(default)s)")
    add("--noise", type=float, metavar="HU", help="noise of strokes in pixels of 0.85 mm (default: drawn, 2 to 10)")
    add("--still", action="store_true", help="strokes without motion")
    add("--seed", type=int, default=1, metavar="N", help="another seed gives other heads (default: %(default)s)")
    add("--split", default="train=0.7,val=0.15,test=0.15", metavar="NAME=SHARE,...",
        help="shares of the splits in the table (default: %(default)s)")  # fmt: skip
    add("--format", choices=FORMATS, default="nrrd",
        help="nii.gz cannot hold tilted scans, so none are made then (default: %(default)s)")  # fmt: skip
    add("--real", type=Path, default=data / "head_ct_training", metavar="FOLDER",
        help="real head CTs with *labels.json (default: head_ct_training in $NEURAXIS_DATA)")  # fmt: skip
    add("--label-maps", type=Path, default=_first(data / "label_maps", SAMPLE_ANATOMY), metavar="FOLDER",
        help="whole-head label maps training_seg_*.nii.gz (default: label_maps in $NEURAXIS_DATA; without it, three "
        "that come along)")  # fmt: skip
    add("--lesion-shapes", type=Path, default=data / "lesion_shapes" / "infarct", metavar="FOLDER",
        help="real lesion masks, for shapes of lesions (default: lesion_shapes/infarct in $NEURAXIS_DATA)")  # fmt: skip
    add("--atlas", type=Path, default=_first(data / "perfusion" / ATLAS, SAMPLE_ANATOMY / ATLAS), metavar="FILE",
        help="arterial territories (default: in $NEURAXIS_DATA; without it, the one that comes along)")  # fmt: skip
    add("--workers", type=int, default=max(1, usable_cores() - 1), metavar="N",
        help="processes (default: all cores but one, here %(default)s)")  # fmt: skip
    return parser.parse_args(arguments)


def _first(*paths: Path) -> Path:
    """The first that is there; the first of all if none is, for the message that says so."""
    return next((path for path in paths if path.exists()), paths[0])


def main(arguments: list[str]) -> int:
    """Run; returns the exit status: 0 done, 1 a fault told in one sentence, 2 a bad command line, 130 stopped."""
    return run_command(parse, _work, arguments)


def _work(options: argparse.Namespace) -> None:
    from Training.pool import results

    shares = _shares(options.split)
    counts = (options.planted, options.synthetic, options.stroke, options.spines)
    if min(counts) < 0 or not sum(counts):
        raise InputError("Nothing to simulate; give --planted, --synthetic, --stroke or --spines a number above 0.")
    if options.spines:
        _spines(options)
        return
    if options.stroke:
        _strokes(options, shares)
        return
    places = (options.real, options.label_maps, options.lesion_shapes)
    plans = plan(_sources(*places), options.planted, options.synthetic, options.seed)
    splits = []
    for source in SOURCES:  # each source by itself, so that every split holds both
        splits += split_by_patient([made.patient for made in plans if made.source == source], shares, options.seed)
    _make_folders(options, ("images", "truth", "region"), {"seed": options.seed, "format": options.format})
    missing = [made for made in plans if not made.files(options.folder, options.format)["image"].exists()]
    jobs = [(made, options.folder, options.format, *places) for made in missing]
    try:
        with ProgressLine() as line:
            for done, _ in enumerate(results(make, jobs, options.workers), start=1):
                line(done / len(jobs), f"simulated {done} of {len(jobs)} heads")
    finally:
        rows = _table(options, plans, splits)
    print(f"{rows} cases are in {options.folder / TABLE}")


def _strokes(options: argparse.Namespace, shares: dict[str, float]) -> None:
    """Simulate what ``--stroke`` asks for."""
    from Training.pool import results
    from Training.strokes import (
        StrokeFiles,
        StrokeOptions,
        is_there,
        make_stroke,
        plan_strokes,
        sources_of,
        write_tables,
    )

    if options.planted or options.synthetic:
        raise InputError("Strokes and bleeds need folders of their own; simulate them one after the other.")
    if not 32 <= options.size <= 1024:
        raise InputError(f"A matrix of {options.size} pixels cannot be simulated; give --size 32 to 1024.")
    if options.noise is not None and not 0 <= options.noise <= 100:
        raise InputError(f"A noise of {options.noise:g} HU cannot be simulated; give --noise 0 to 100.")
    places = (options.label_maps, options.atlas, options.lesion_shapes)
    plans = plan_strokes(sources_of(*places), options.stroke, options.seed)
    splits = split_by_patient([made.patient for made in plans], shares, options.seed)
    asked = {"content": options.content, "size": options.size, "noise": options.noise, "still": options.still}
    _make_folders(options, ("truth",), {"seed": options.seed, "format": "nrrd", **asked})
    drawn = StrokeOptions(options.size, noise_hu=options.noise, moves="still" if options.still else None)
    files = StrokeFiles(options.folder, options.content, drawn, *places)
    jobs = [(made, files) for made in plans if not is_there(made, options.folder)]
    try:
        with ProgressLine() as line:
            for done, _ in enumerate(results(make_stroke, jobs, options.workers), start=1):
                line(done / len(jobs), f"simulated {done} of {len(jobs)} series")
    finally:
        rows = write_tables(options.folder, options.content, plans, splits)
    print(f"{rows} cases are in {options.folder / TABLE}")


def _spines(options: argparse.Namespace) -> None:
    """Simulate what ``--spines`` asks for."""
    from Training.pool import results
    from Training.simulated_spines import is_there, write_list, write_spine

    if options.planted or options.synthetic or options.stroke:
        raise InputError("Spines need a folder of their own; simulate them alone.")
    told = {"seed": options.seed, "format": options.format, "region": options.region}
    _make_folders(options, ("spines",), told)
    files = (options.folder, options.format, options.region, options.seed)
    jobs = [(number, *files) for number in range(options.spines) if not is_there(number, *files[:2])]
    try:
        with ProgressLine() as line:
            for done, _ in enumerate(results(write_spine, jobs, options.workers), start=1):
                line(done / len(jobs), f"simulated {done} of {len(jobs)} spines")
    finally:
        count = write_list(*files, options.spines)
    print(f"{count} spines are in {options.folder}")


def plan(sources: HeadSources, planted: int, synthetic: int, seed: int) -> list[Plan]:
    """What is to be made, planted heads first. InputError if the folders hold nothing to make it from."""
    plans = []
    for source, count in (("planted", planted), ("synthetic", synthetic)):
        for number in range(count):
            own = (seed, SOURCES[source], number)
            plans.append(Plan(f"{source}_{number:05d}", source, own, _patient(sources, source, own)))
    return plans


def split_by_patient(patients: Sequence[str], shares: dict[str, float], seed: int) -> list[str]:
    """The split of each case: patients in a random order fill the splits in turn, each up to its share of the cases.

    All cases of a patient share a split; with fewer patients than splits the first ones get them.
    """
    order = np.random.default_rng([seed, 99]).permutation(sorted(set(patients)))
    total, names = sum(shares.values()), list(shares)
    edges = np.cumsum([shares[name] / total for name in names]) * len(patients)
    split_of, filled = {}, 0
    for patient in order:
        count = patients.count(patient)
        split_of[patient] = names[min(int(np.searchsorted(edges, filled + count / 2)), len(names) - 1)]
        filled += count
    return [split_of[patient] for patient in patients]


def make(plan: Plan, folder: Path, suffix: str, real: Path, label_maps: Path, shapes: Path) -> None:
    """Simulate one head and write its files, the image last."""
    from NeuraxisLib.files import write_volume

    head = _draw(plan, _sources(real, label_maps, shapes), suffix)
    grid = head.volume
    arrays = {"truth": head.truth, "region": head.brain.astype(np.uint8)}
    files = plan.files(folder, suffix)
    for column, array in arrays.items():
        write_volume(grid.like(array), files[column], compress=True)
    write_volume(grid.like(np.rint(grid.array).astype(np.int16), "HU"), files["image"], compress=True)


def _draw(plan: Plan, sources: HeadSources, suffix: str) -> SimulatedHead:
    """The head; drawn again where no brain is in view, or a format that knows no tilt would have to lie."""
    for attempt in range(MOST_DRAWN):
        # The first attempt uses the very numbers by which _patient looked ahead; later ones keep the patient.
        rng = np.random.default_rng(plan.seed if attempt == 0 else [*plan.seed, attempt])
        if attempt and _patient(sources, plan.source, (*plan.seed, attempt)) != plan.patient:
            continue
        head = getattr(sources, plan.source)(rng)
        fits = suffix == "nrrd" or (head.volume.is_uniform and not head.volume.is_sheared)
        if head.brain.any() and fits:
            return head
    raise InputError(f"No head without tilt was drawn for '{plan.name}'; choose --format nrrd or another --seed.")


def _patient(sources: HeadSources, source: str, seed: tuple[int, ...]) -> str:
    """The scan or label map that a head of this seed is made from: what HeadSources draws first."""
    rng = np.random.default_rng(seed)
    if source == "planted" and sources.clean:
        return str(rng.choice(sources.clean))
    if source == "synthetic" and sources.maps:
        return sources.maps[rng.integers(len(sources.maps))].name.split(".")[0]
    getattr(sources, source)(rng)  # says what is missing
    raise AssertionError(source)


@cache
def _sources(real: Path, label_maps: Path, shapes: Path | None) -> HeadSources:
    """The scans and label maps, read once per process."""
    from Training.simulation.bank import HeadSources

    return HeadSources(real, label_maps, shapes if shapes and shapes.is_dir() else None)


def _shares(text: str) -> dict[str, float]:
    """``train=0.8,val=0.2`` as numbers."""
    try:
        shares = {name.strip(): float(share) for name, share in (part.split("=") for part in text.split(","))}
    except ValueError:
        shares = {}
    if not shares or min(shares.values()) < 0 or not 0 < sum(shares.values()) < float("inf"):
        raise InputError(f"The splits '{text}' cannot be read; write them as train=0.7,val=0.15,test=0.15.")
    return shares


def _make_folders(options: argparse.Namespace, places: Sequence[str], asked: dict[str, object]) -> None:
    """The folders, and a note of what was asked: a folder holds the heads of one seed and format."""
    try:
        for place in places:
            (options.folder / place).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(error, options.folder.name) from None
    path = options.folder / SETTINGS
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        changed = [name for name in asked if before.get(name) != asked[name]]
        if changed:
            raise InputError(
                f"The folder '{options.folder.name}' holds heads of another {changed[0]} ({before.get(changed[0])}); "
                "give the same or choose another folder."
            )
        return
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps({**asked, "version": __version__}), encoding="utf-8")


def _table(options: argparse.Namespace, plans: list[Plan], splits: list[str]) -> int:
    """Write the table of the cases that are there; returns how many."""
    rows = []
    for made, split in zip(plans, splits):
        files = made.files(options.folder, options.format)
        if files["image"].exists():
            places = {column: path.relative_to(options.folder).as_posix() for column, path in files.items()}
            rows.append({"id": made.name, **places, "patient": made.patient, "group": made.source, "split": split})
    with (
        atomic_write(options.folder / TABLE) as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as stream,
    ):
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return len(rows)


if __name__ == "__main__":
    finish(main(sys.argv[1:]))
