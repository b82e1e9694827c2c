"""Rows of the table: reading, metrics, naming, perfusion, training and start-up, beside what one would use instead."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from NeuraxisLib.volume import Volume
from Testing.benchmarks import benchmark_frames, benchmark_naming, benchmark_perfusion, benchmark_store
from Testing.benchmarks import benchmark_training as training_benchmark
from Testing.benchmarks.results import Comparison, Row, Settings, Work
from Testing.benchmarks.turns import Apart, Here, Run, Taken, median, take_turns

ROOT = Path(__file__).resolve().parents[2]


# -- perfusion ------------------------------------------------------------------------------------------------


#: What a reader of a comparison should know.
WHY = {
    "model maps, each voxel for itself": "the peer takes the best atom as it is; ours moves between atoms.",
}


def perfusion(settings: Settings) -> Row:
    """The steps of a perfusion study, in one process for ours and peers alike."""
    contender = Apart(settings.threads, compared_steps, settings.quick, settings.rounds)
    try:
        return Row("CT perfusion", contender.round().answer)
    finally:
        contender.close()


def compared_steps(quick: bool, rounds: int) -> Run:
    """In that process: a comparison for each step."""
    from NeuraxisLib.process import keep_freed_memory
    from Training.simulation.ctp_stroke_phantom import stroke_phantom

    keep_freed_memory()
    shape = (8, 128, 128) if quick else (16, 256, 256)
    head = stroke_phantom(shape_kji=shape, spacing_mm=(220 / shape[1], 220 / shape[1], 5.0), noise_hu=5.0,
                          hypoperfused_ml=100.0 if quick else 210.7, core_ml=20.0 if quick else 50.5)  # fmt: skip

    def compare() -> list[Comparison]:
        jobs, voxels, atoms = benchmark_perfusion.speed_jobs(head, "cpu")
        frames = len(head.frames.frame_times_s)
        work = {
            "bSVD maps": Work(2.0 * voxels * frames * 2 * frames, 4.0 * voxels * (frames + 4)),
            "bSVD peaks, lags of whole frames": Work(2.5 * voxels * frames * frames, 4.0 * voxels * (frames + 2)),
            "model maps, each voxel for itself": Work(2.0 * voxels * frames * atoms, 4.0 * voxels * (frames + 4)),
            "Gaussian": Work(0.0, 2.0 * head.frames.array.size * 4),
        }
        found = []
        for name, _, ours, peers in jobs:
            if quick and "motion" in name:
                continue
            runs = {"ours": Here(silent(ours)), **{peer: Here(silent(run)) for peer, (run, _) in peers.items()}}
            taken = take_turns(runs, rounds if peers else 1)
            scaled = {peer: times(one, peers.get(peer, (None, 1.0))[1]) for peer, one in taken.items()}
            what = f"Perfusion, {name}, {' x '.join(map(str, head.frames.array.shape))}"
            found.append(Comparison(what, scaled, work.get(name), WHY.get(name, "")))
        return found

    return compare


def silent(run: Callable[[], object]) -> Run:
    """The run without what it gives."""

    def nothing() -> None:
        run()

    return nothing


def times(taken: Taken, scale: float) -> Taken:
    """What a sample took, for all."""
    return replace(taken, wall_s=taken.wall_s * scale, cpu_s=taken.cpu_s * scale)


# -- reading --------------------------------------------------------------------------------------------------


def write_ct(folder: Path, slices: int, side: int) -> None:
    """A CT series of noise, uncompressed, one file per slice."""
    from Testing.dicom_series import series

    folder.mkdir()
    rng = np.random.default_rng(0)
    plain = series(heights_mm=[0.0], contents=lambda at: np.full(at.shape[:-1], 40), matrix=side, pixel_mm=220 / side)[
        0
    ]
    left, top, _ = plain.ImagePositionPatient
    for number in range(slices):
        uid = f"1.2.826.0.1.3680043.8.498.1.{number}"
        plain.SOPInstanceUID = plain.file_meta.MediaStorageSOPInstanceUID = uid
        plain.InstanceNumber, plain.ImagePositionPatient = number + 1, [left, top, float(number)]
        plain.SliceThickness = 1.0
        stored = rng.integers(1000, 1200, (side, side), np.int16)
        stored[:, : side // 4] = 24  # air
        plain.PixelData = stored.tobytes()
        plain.save_as(folder / f"{number:04d}.dcm", enforce_file_format=True)


def ours_ct(folder: Path) -> Run:
    """Our reader of a CT series; answers with the sum of the voxels."""
    from NeuraxisLib.dicom import read_series
    from NeuraxisLib.process import keep_freed_memory

    keep_freed_memory()
    return lambda: int(read_series(folder).array[::50].sum())


def simpleitk_ct(folder: Path) -> Run:
    """SimpleITK's series reader, on one thread."""
    import SimpleITK as sitk

    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)

    def run() -> int:
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
        return int(sitk.GetArrayFromImage(reader.Execute())[::50].sum())

    return run


def ours_ctp(folder: Path) -> Run:
    """Our reader of perfusion frames."""
    from NeuraxisLib.process import keep_freed_memory

    keep_freed_memory()
    return lambda: int(benchmark_frames.read_frames(folder).volume.array[::5].sum())


def pydicom_ctp(folder: Path) -> Run:
    """The same files in plain pydicom."""
    return lambda: int(benchmark_frames.peer_read(folder)[::5].sum())


def dicom(settings: Settings) -> Row:
    """Series from folders with all checks, beside SimpleITK's series reader and plain pydicom, which make none."""
    ct, ctp, threads = settings.folder / "ct", settings.folder / "ctp", settings.threads
    slices, side = (12, 64) if settings.quick else (200, 512)
    write_ct(ct, slices, side)
    taken = take_turns(
        {
            "ours, with geometry checks": Apart(threads, ours_ct, ct),
            "SimpleITK series reader": Apart(threads, simpleitk_ct, ct),
        },
        settings.rounds,
    )
    agreed(taken)
    what = f"DICOM load, CT {slices} x {side} x {side}, uncompressed"
    compared = [Comparison(what, taken, Work(0.0, 2.0 * 2 * slices * side**2))]
    count, slices, side = (12, 3, 64) if settings.quick else (45, 16, 256)
    benchmark_frames.write_series(ctp, count, slices, side)
    taken = take_turns(
        {
            "ours, with times and checks": Apart(threads, ours_ctp, ctp),
            "pydicom, sorted and stacked": Apart(threads, pydicom_ctp, ctp),
        },
        settings.rounds,
    )
    agreed(taken)
    what = f"DICOM load, perfusion {count} x {slices} x {side} x {side}"
    compared.append(Comparison(what, taken, Work(0.0, 2.0 * 2 * count * slices * side**2)))
    return Row("Reading DICOM", compared)


def agreed(taken: dict[str, Taken]) -> None:
    """AssertionError unless all contenders gave the same."""
    answers = {one.answer for one in taken.values()}
    assert len(answers) == 1, f"the contenders differ: {answers}"


def patches(settings: Settings) -> Row:
    """A training patch from the store, beside the whole compressed NIfTI that it lies in."""
    scans, reads = (1, 3) if settings.quick else (3, 40)
    folder, rng, size = settings.folder / "store", np.random.default_rng(0), benchmark_store.PATCH
    folder.mkdir()
    benchmark_store.write_all(folder, benchmark_store.scans(scans))
    readers = {**benchmark_store.contenders(folder), "nibabel": _from_nibabel(folder)}
    starts = [[int(rng.integers(w - p + 1)) for w, p in zip(benchmark_store.SHAPE, size)] for _ in range(reads)]
    boxes = [tuple(slice(at, at + part) for at, part in zip(start, size)) for start in starts]
    chosen = {name: boxes[: max(1, reads // 20)] if name in ("nii.gz", "nibabel") else boxes for name in readers}

    def all_of(name: str) -> float:
        return float(sum(int(readers[name](n % scans, box)[0, 0, 0]) for n, box in enumerate(chosen[name])))

    named = {"store, none": "ours, store as it is by default", "store, lzf": "ours, store with lzf"}
    named |= {"nii.gz": "ours, nii.gz read whole and cut", "nibabel": "nii.gz by nibabel, as MONAI's reader"}
    taken = take_turns({words: Here(lambda name=name: all_of(name)) for name, words in named.items()}, settings.rounds)
    each = {words: times(taken[words], 1 / len(chosen[name])) for name, words in named.items()}
    what = f"Training patch {' x '.join(map(str, size))} out of {' x '.join(map(str, benchmark_store.SHAPE))}"
    note = (
        "stores are not compressed by default; with lzf they are a third of the size, and unpacking takes the time. "
        "Training cuts image and truth from files of the same make, a case each, on the network's grid."
    )
    return Row("Reading patches", [Comparison(what, each, Work(0.0, 2.0 * 2 * float(np.prod(size))), note)])


def _from_nibabel(folder: Path) -> Callable[[int, tuple[slice, ...]], np.ndarray]:
    """A patch as one has it with nibabel: the whole file unpacked, the box cut out; axes (k, j, i) as ours."""
    import nibabel

    return lambda number, box: np.asarray(nibabel.load(folder / f"{number}.nii.gz").dataobj).T[box]


# -- metrics --------------------------------------------------------------------------------------------------


def masks(settings: Settings) -> tuple[np.ndarray, np.ndarray, Volume]:
    """Two ellipsoids of about 34 mL on 40 x 512 x 512, a few mm apart, with knobs."""
    shape = (12, 96, 96) if settings.quick else (40, 512, 512)
    spacing = np.array([4.0, 0.45 * 512 / shape[1], 0.45 * 512 / shape[2]])
    volume = Volume(np.zeros(shape, np.int16), np.diag([-spacing[2], -spacing[1], spacing[0], 1.0]), "HU")
    axes = np.meshgrid(*[(np.arange(n) - n / 2) * step for n, step in zip(shape, spacing)], indexing="ij", sparse=True)

    def ellipsoid(centre: tuple, radii: tuple) -> np.ndarray:
        return sum(((at - middle) / radius) ** 2 for at, middle, radius in zip(axes, centre, radii)) <= 1

    truth = ellipsoid((0, 0, 0), (18, 21, 21)) | ellipsoid((4, 40, 30), (9, 6, 6))
    return ellipsoid((2, 3, -2), (17, 22, 20)) | ellipsoid((-8, -45, 20), (8, 5, 7)), truth, volume


def metrics(settings: Settings) -> Row:
    """Dice, HD95, normalised surface distance and components of one pair of masks, beside MONAI's."""
    import torch
    from monai.metrics import compute_dice, compute_hausdorff_distance, compute_surface_dice
    from skimage.measure import label

    from NeuraxisLib.measure import components
    from Training.evaluation.overlap import Overlap
    from Training.evaluation.surface import normalised_surface_distance, surface_distances

    found, truth, volume = masks(settings)
    spacing = [float(step) for step in volume.spacing_mm[::-1]]
    pair = [torch.from_numpy(mask.astype(np.float32))[None, None] for mask in (found, truth)]

    def ours() -> tuple[float, ...]:
        dice = Overlap.of(found, truth).measures()["dice"]
        hd95 = surface_distances(found, truth, volume).hausdorff(95)
        return dice, hd95, normalised_surface_distance(found, truth, volume, (2.0,))[0], len(components(found, volume))

    def monai() -> tuple[float, ...]:
        dice = float(compute_dice(*pair))
        hd95 = float(compute_hausdorff_distance(*pair, include_background=True, percentile=95, spacing=spacing))
        nsd = compute_surface_dice(*pair, [2.0], include_background=True, spacing=spacing, use_subvoxels=True)
        return dice, hd95, float(nsd), int(label(found, connectivity=3).max())

    taken = take_turns({"ours": Here(ours), "MONAI (components: scikit-image)": Here(monai)}, settings.rounds)
    one, other = (taken[name].answer for name in taken)
    differences = [abs(a - b) for a, b in zip(one, other)]
    words = ", ".join(f"{name} {gap:.1e}" for name, gap in zip(("Dice", "HD95 [mm]", "NSD", "components"), differences))
    what = f"Dice, HD95, NSD and components of a pair, {' x '.join(map(str, found.shape))}"
    compared = Comparison(what, taken, Work(0.0, 2.0 * found.size), f"Differences from MONAI: {words}.")
    return Row("Metrics", [compared], facts={"differences": differences})


# -- naming ---------------------------------------------------------------------------------------------------


def naming(settings: Settings) -> Row:
    """Discs among false candidates: the released search over all combinations, ours of the same choice, and ours."""
    from Testing.benchmarks.benchmark_naming import (
        as_candidates,
        crowded_channels,
        legacy_skeleton_search,
        name_chain,
        skeleton_search,
        synthetic_spine,
    )

    row, rng, same = Row("Naming of discs"), np.random.default_rng(7), []
    for false in (1,) if settings.quick else (1, 10, 20):
        spine = synthetic_spine(rng, size=1.0, missing=0.0, false=false, shift_sd=0.2).candidates
        channels = crowded_channels(rng, false)
        seen = as_candidates(channels)
        runs = {
            "ours, the same choice of 11 discs": Here(lambda it=channels: list(skeleton_search(it).chosen)),
            "ours, chain search, the same 11 discs with probabilities": Here(lambda it=seen: len(name_chain(it).discs)),
            "ours, chain search, 24 discs with probabilities": Here(lambda it=spine: len(name_chain(it).discs)),
            "released exhaustive search, 11 discs": Here(lambda it=channels: list(legacy_skeleton_search(it).chosen)),
        }
        taken = take_turns(runs, settings.rounds)
        chosen = [taken[name].answer for name in runs if "choice" in name or name.startswith("released")]
        same.append(chosen[0] == chosen[1])
        row.comparisons.append(Comparison(f"Naming with {false} false candidates", taken))
    row.comparisons[0].note = (
        f"ours of the same choice gives the answer of the released search ({sum(same)} of {len(same)} times here), of "
        "the same candidates. The chain search, by which discs are named unless asked otherwise, answers more: which "
        "level, with which probability, and how else. It takes much the same time for any number, longer than the two "
        "combinations that there are with one false candidate; with ten there are 1024."
    )
    row.comparisons[-1].note = (
        "the released search tries every combination; published times are "
        f"{benchmark_naming.PUBLISHED_S[30]:g} s at 30 "
        f"and {benchmark_naming.PUBLISHED_S[100]:g} s at 100, ours stays where it is. No roofline: it is a search."
    )
    return row


# -- training -------------------------------------------------------------------------------------------------


def training(settings: Settings) -> Row:
    """One sample through the training loop, beside a plain MONAI loop."""
    names = (
        ["ours", "MONAI loop, no worker"]
        if settings.quick
        else ["ours", "MONAI loop, no worker", "MONAI loop, one worker"]
    )
    steps, rounds = ("1", "1") if settings.quick else ("3", str(settings.rounds))
    asked = ["--rounds", rounds, "--steps", steps, "--threads", str(settings.threads), "--contenders", *names]
    found, _ = training_benchmark.measure(training_benchmark.parse(asked))
    taken = {name: median([Taken(1 / rate, cpu_s) for rate, cpu_s in rounds]) for name, rounds in found.items()}
    what = "Training, one sample of 4 x 192 x 192 through the compact DR-UNet"
    note = "The processor time of a MONAI worker process is not counted, which flatters it."
    return Row("Training", [Comparison(what, taken, note=note)])


# -- start-up -------------------------------------------------------------------------------------------------


IMPORTS = {
    "ours": "import NeuraxisLib.run, NeuraxisLib.inference, HemorrhageSegLib.pipeline, HemorrhageSegLib.networks",
    "torch alone": "import torch",
    "MONAI": "import monai.inferers, monai.transforms, monai.data",
}


def startup(settings: Settings) -> Row:
    """Importing what one needs to predict, in a fresh interpreter."""
    every: dict[str, list[Taken]] = {name: [] for name in IMPORTS}
    for _ in range(settings.rounds):  # files are in memory already: this process has imported the same
        for name, code in IMPORTS.items():
            every[name].append(_fresh(code))
    taken = {name: median(rounds) for name, rounds in every.items()}
    row = Row(
        "Start-up", [Comparison("Cold import of what prediction needs", {n: taken[n] for n in ("ours", "MONAI")})]
    )
    ours, alone = taken["ours"], taken["torch alone"]
    row.facts = {"cpu_s": ours.cpu_s, "peak_gb": ours.peak_gb}
    row.facts |= {"torch_cpu_s": alone.cpu_s, "torch_peak_gb": alone.peak_gb}
    return row


def _fresh(code: str) -> Taken:
    """A new interpreter that imports and ends; its memory by its own word, as the system counts its parent's too.

    It keeps bytecode, as an installed program has it, whatever this process was told.
    """
    paths = [str(ROOT / name) for name in ("Neuraxis", "HemorrhageSeg")] + [str(ROOT)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    code += "\nfrom Testing.benchmarks.turns import memory_gb\nprint(memory_gb('VmHWM'))"
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    with process.stdout as stream:
        peak = stream.read().split()[-1:]
    _, process.returncode, usage = os.wait4(process.pid, 0)
    assert process.returncode == 0, code
    peak_gb = None if peak in ([], ["None"]) else float(peak[0])
    return Taken(time.perf_counter() - start, usage.ru_utime + usage.ru_stime, peak_gb)
