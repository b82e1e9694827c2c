"""Rows of the table: networks in our tasks, beside the same weights in MONAI's windows, nnU-Net, released schemes."""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from NeuraxisLib.files import read_volume, write_volume
from NeuraxisLib.inference import build_network
from NeuraxisLib.models import find_model, load_model
from NeuraxisLib.process import keep_freed_memory
from NeuraxisLib.task import Progress, get_task
from NeuraxisLib.volume import Volume
from Testing.benchmarks import benchmark_discs, benchmark_inference, benchmark_slexnet, nnunet_peer, roofline
from Testing.benchmarks.results import Comparison, Row, Settings, Sheet, Work
from Testing.benchmarks.turns import Apart, Here, Run, take_turns

OVERLAP = 0.25


def head(settings: Settings) -> Path:
    """The bundled head CT on 36 x 512 x 512, in a file; a small one where it must be quick."""
    path = settings.folder / "head.nrrd"
    if not path.exists():
        source = read_volume(get_task("hemorrhage").resources / "SampleData" / "head_ct_hemorrhage.nrrd")
        shape = (12, 128, 128) if settings.quick else benchmark_inference.SHAPE
        write_volume(benchmark_inference.enlarged(source, shape), path)
    return path


def spine(settings: Settings) -> Path:
    """The bundled spine MR on 15 x 512 x 512, in a file; as it is where it must be quick."""
    path = settings.folder / "spine.nrrd"
    if not path.exists():
        source = read_volume(get_task("discs").resources / "SampleData" / "lumbar_spine_mr.nrrd")
        write_volume(source if settings.quick else benchmark_discs.enlarged(source), path)
    return path


def size_of(path: Path) -> str:
    """In words."""
    return " x ".join(map(str, read_volume(path).array.shape))


# -- hemorrhage -----------------------------------------------------------------------------------------------


def drunet(settings: Settings) -> Row:
    """The default network of hemorrhage in the whole task."""
    row = _hemorrhage(settings, "hemorrhage-drunet-starter", ("ours", "ours-float32", "peer-0.25"), 0.67)
    row.comparisons[
        0
    ].note += " At the overlap of 0.625 that peers in Slicer use, a head of 512 x 512 takes as many windows as at 0.25."
    return row


def slexnet(settings: Settings) -> Row:
    """SLEX-Net in the whole task, and its sliding scheme alone."""
    row = _hemorrhage(settings, "hemorrhage-slexnet-starter", ("ours", "ours-float32", "peer-0.25"), 0.34)
    slices, side = (4, 64) if settings.quick else (12, 192)
    runs = benchmark_slexnet.contenders(16, side, slices, "cpu")
    names = ["ours", *(name for name in runs if name != "ours")]
    taken = take_turns({name: Here(lambda run=runs[name][0]: float(run().sum())) for name in names}, 2)
    what = f"SLEX-Net alone, {slices} slices of {side} x {side}, float32"
    work = work_of(ours_slex, side, slices)
    note = "Released scheme: three backbone passes per slice; ours keeps the neighbours' (one)."
    row.comparisons.append(Comparison(what, taken, work, note))
    return row


def ours_slex(side: int, slices: int) -> Run:
    """SLEX-Net over slices by our scheme."""
    return benchmark_slexnet.contenders(16, side, slices, "cpu")["ours"][0]


def _hemorrhage(settings: Settings, starter: str, names: tuple[str, ...], share: float) -> Row:
    """Ours and MONAI's windows; ``share`` of the rounds, as peers take long."""
    scan, model = head(settings), Path(find_model(get_task("hemorrhage"), starter))
    rounds = max(1, round(share * settings.rounds))
    taken = take_turns(benchmark_inference.contenders(scan, model, settings.threads, names), rounds)
    what = f"{starter}: head CT {size_of(scan)}, whole task"
    work = work_of(benchmark_inference.ours, scan, model, "auto")
    note = "The peers find no brain and measure nothing."
    return Row(f"Hemorrhage, {starter}", [Comparison(what, taken, work, note)])


def nnunet(settings: Settings) -> Row:
    """nnU-Net's own predictor around the default network."""
    row = Row("Hemorrhage network in nnU-Net's predictor")
    if find_spec("nnunetv2") is None:
        row.notes.append("Not measured: nnunetv2 is not installed (see the benchmark's target in the Makefile).")
        return row
    scan = head(settings)
    model = Path(find_model(get_task("hemorrhage"), "hemorrhage-drunet-starter"))
    contenders = {
        "ours, whole task": Apart(settings.threads, benchmark_inference.ours, scan, model, "auto"),
        "nnU-Net, one fold, without mirroring": Apart(settings.threads, nnunet_peer.peer, scan, model, False),
        "nnU-Net, one fold, mirrored (its default)": Apart(settings.threads, nnunet_peer.peer, scan, model, True),
    }
    taken = take_turns(contenders, 0)
    plain, mirrored = list(taken.values())[1:]
    network_s = (mirrored.cpu_s - plain.cpu_s) / 3 * 4  # four passes in place of one
    folds_s = mirrored.cpu_s + 4 * network_s
    row.facts = {"ours_cpu_s": taken["ours, whole task"].cpu_s, "five_folds_cpu_s": folds_s}
    row.comparisons.append(
        Comparison(
            f"hemorrhage-drunet-starter: head CT {size_of(scan)}, by nnU-Net's own code",
            taken,
            note=f"Five folds, nnU-Net's default, would take {folds_s:.0f} s of the processor (calculated).",
        )
    )
    return row


# -- stroke ---------------------------------------------------------------------------------------------------


def stroke_maps() -> dict[str, Volume]:
    """Maps of the simulated stroke head, NaN outside the tissue."""
    from StrokeCTPLib.perfusion_maps import compute_maps
    from Training.simulation.ctp_stroke_phantom import stroke_phantom

    frames = stroke_phantom(noise_hu=5.0).frames
    maps = compute_maps(frames)
    return {
        name: Volume(np.where(maps.tissue, values, np.float32(np.nan)), frames.ijk_to_ras)
        for name, values in maps.svd.items()
    }


def ours_stroke(model_path: Path) -> Run:
    """Our prediction on maps in memory; answers with the voxels of the lesion."""
    from StrokeCTPLib.prediction import predict

    keep_freed_memory()
    maps, model = stroke_maps(), load_model(model_path, "stroke")
    return lambda: int(np.count_nonzero(predict(maps, model)[0].argmax(axis=0)))


def peer_stroke(model_path: Path) -> Run:
    """The same weights in MONAI's transforms and windows."""
    from monai.data import MetaTensor
    from monai.inferers import sliding_window_inference
    from monai.transforms import ResampleToMatch, ScaleIntensityRange, Spacing

    from StrokeCTPLib.networks import NETWORKS

    maps, model = stroke_maps(), load_model(model_path, "stroke")
    shown, network = model.header["preprocessing"], build_network(model, NETWORKS)
    given = [maps[name] for name in shown["maps"]]
    stack, affine = np.nan_to_num(np.stack([one.array.T for one in given])), given[0].ijk_to_ras
    known = np.isfinite(given[0].array.T)

    @torch.inference_mode()
    def run() -> int:
        image = MetaTensor(torch.from_numpy(stack.copy()), affine=affine)
        coarse = Spacing((shown["pixel_mm"], shown["pixel_mm"], given[0].spacing_mm[2]), mode="bilinear")(image)
        scaled = [
            torch.as_tensor(ScaleIntensityRange(*shown["ranges"][name], 0, 1, clip=True)(plane))
            for name, plane in zip(shown["maps"], coarse)
        ]
        inputs = torch.stack(scaled).permute(3, 0, 2, 1)
        size = (shown["size"],) * 2
        logits = sliding_window_inference(inputs, size, 4, network, overlap=OVERLAP, mode="gaussian")
        values = MetaTensor(logits.softmax(1).permute(1, 3, 2, 0), affine=coarse.affine)
        back = ResampleToMatch(mode="bilinear", padding_mode="zeros")(values, image)
        return int(np.count_nonzero(back.numpy().argmax(axis=0) * known))

    return run


def stroke(settings: Settings) -> Row:
    """The stroke network on maps."""
    model = Path(find_model(get_task("stroke"), "stroke-starter"))
    made = {
        "ours": Apart(settings.threads, ours_stroke, model),
        f"MONAI windows, overlap {OVERLAP}": Apart(settings.threads, peer_stroke, model),
    }
    taken = take_turns(made, settings.rounds)
    work = work_of(ours_stroke, model)
    what = "stroke-starter: four maps 16 x 256 x 256, classes back on their grid"
    return Row("Stroke network", [Comparison(what, taken, work)])


# -- discs ----------------------------------------------------------------------------------------------------


def ours_discs(scan: Path, model_path: Path) -> Run:
    """The whole task; answers with the number of discs."""
    keep_freed_memory()
    task = get_task("discs")
    volume, model, options = read_volume(scan), load_model(model_path, "discs"), task.options_type(device="cpu")
    return lambda: len(task.run({"mr": volume}, model, options, Progress()).points)


def ours_located(scan: Path, model_path: Path) -> Run:
    """What the peer does and no more: slabs through the network, and the peaks of the maps in space."""
    from SpineDiscLabelLib.locate import locate

    keep_freed_memory()
    volume, model = read_volume(scan), load_model(model_path, "discs")
    return lambda: len(locate(volume, model, "cpu", "float32"))


def peer_discs(scan: Path, model_path: Path) -> Run:
    """The same weights in MONAI's windows over every slab of the sagittal stack, and the highest point of every map."""
    from monai.data import MetaTensor
    from monai.inferers import sliding_window_inference
    from monai.transforms import ScaleIntensityRangePercentiles, Spacing

    from SpineDiscLabelLib.networks import NETWORKS
    from SpineDiscLabelLib.sagittal import sagittal_order

    volume, model = read_volume(scan), load_model(model_path, "discs")
    shown, network = model.header["preprocessing"], build_network(model, NETWORKS)
    volume = sagittal_order(volume).apply(volume)

    @torch.inference_mode()
    def run() -> int:
        image = MetaTensor(torch.from_numpy(volume.array.T.astype(np.float32))[None], affine=volume.ijk_to_ras)
        pixdim = (shown["pixel_mm"], shown["pixel_mm"], shown["slab_mm"])
        slabs = torch.as_tensor(ScaleIntensityRangePercentiles(1, 99, 0, 1)(Spacing(pixdim)(image)))[0]
        slabs = slabs.permute(2, 1, 0)
        every = torch.arange(len(slabs))
        inputs = torch.stack([slabs[(every + step).clamp(0, len(slabs) - 1)] for step in (-1, 0, 1)], dim=1)
        size, last = (shown["tile"],) * 2, lambda x: network(x)[-1]
        maps = sliding_window_inference(inputs, size, 4, last, overlap=OVERLAP, mode="gaussian")
        return int((maps.amax(dim=(0, 2, 3)) > model.header["threshold"]).sum())

    return run


def discs(settings: Settings) -> Row:
    """The disc network, its peaks alone and in the whole task."""
    scan, model = spine(settings), Path(find_model(get_task("discs"), "discs-hourglass-starter"))
    made = {
        "ours, discs located": Apart(settings.threads, ours_located, scan, model),
        "ours, whole task": Apart(settings.threads, ours_discs, scan, model),
        f"MONAI windows, overlap {OVERLAP}, peaks only": Apart(settings.threads, peer_discs, scan, model),
    }
    taken = take_turns(made, settings.rounds)
    what = f"discs-hourglass-starter: spine MR {size_of(scan)}"
    note = (
        "Compared is the peer's job: every slab through the network once, and the peaks of the maps. The whole task "
        "looks at one slab turned three times more, whether the header says truly which way is up, names and measures."
    )
    return Row("Disc network", [Comparison(what, taken, work_of(ours_located, scan, model), note)])


# -- the machine's limits -------------------------------------------------------------------------------------


def limits(settings: Settings) -> Row:
    """How near the starters come to the ceilings of this machine."""
    rounds = 1 if settings.quick else 2
    torch.set_num_threads(settings.threads)
    # the processor's seconds are the wall's for one thread that runs alone, and hold on a busy machine too
    clock = time.process_time if settings.threads == 1 else time.perf_counter
    ceilings = roofline.measure_ceilings(rounds, clock)
    starters = list(roofline.STARTERS)[-1:] if settings.quick else list(roofline.STARTERS)
    apart = {starter: Apart(settings.threads, reached, starter, ceilings, rounds, clock) for starter in starters}
    found: list[roofline.Reached] = []
    for contender in apart.values():
        try:
            found.append(contender.round().answer)
        finally:
            contender.close()
    row = Row("Roofline of the starters")
    words = [one.words() for one in found]
    row.sheet = Sheet(list(words[0]), [[str(value) for value in one.values()] for one in words])
    row.facts = {"peak": ceilings.peak, "bandwidth": ceilings.bandwidth}
    row.facts["fractions"] = {one.starter: one.fraction for one in found}
    row.facts["elsewhere"] = {one.starter: one.elsewhere for one in found}
    row.notes.append(
        f"{settings.threads} thread(s), by its processor time: convolutions reach {ceilings.peak['float32'] / 1e9:.0f} "
        f"GFLOP/s in float32 and {ceilings.peak['bfloat16'] / 1e9:.0f} in bfloat16, a copy "
        f"{ceilings.bandwidth / 1e9:.0f} GB/s."
    )
    return row


def reached(starter: str, ceilings: roofline.Ceilings, rounds: int, clock: Callable[[], float]) -> Run:
    """In a process of its own: what one starter reaches."""
    keep_freed_memory()
    return lambda: roofline.measure(starter, ceilings, rounds, clock)


# -- what the machine has to do at least ----------------------------------------------------------------------


def counted(make: Callable[..., Run], *arguments: Any) -> Run:
    """In a process of its own: operations and bytes of one run, as :mod:`roofline` counts them."""
    run = make(*arguments)
    run()  # the precision is settled

    def count() -> Work:
        with roofline.counted() as meter:
            run()
        return Work(meter.operations, meter.moved_bytes, meter.precision)

    return count


def work_of(make: Callable[..., Run], *arguments: Any) -> Work:
    """Operations and bytes of what a contender of ours does in a round."""
    contender = Apart(1, counted, make, *arguments)
    try:
        return contender.round().answer
    finally:
        contender.close()
