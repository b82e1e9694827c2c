"""Why a row takes more than twice what the roofline allows, as its profile tells.

Shares are of the processor's time of one thread, by ``torch.profiler`` and ``cProfile`` on the machine of the page.
"""

from __future__ import annotations

#: A fraction of the roofline below this needs a reason.
HALF = 0.5

#: Beginning of a comparison's task, or a starter -> the reason.
REASONS = {
    "stroke-starter: four maps": (
        "the network takes 60 % of the task; bringing four maps to its grid by exact area weights takes 20 % and "
        "bringing four classes back to the scan's 17 %."
    ),
    "stroke-starter": (
        "16 passes of one slice each. Convolutions take 75 % of a pass, at 160 of 231 GFLOP/s since the maps of one "
        "slice are small; ReLU, pooling and normalisation between them, which PyTorch runs one by one, take the rest."
    ),
    "discs-hourglass-starter": (
        "4 passes of slabs and 3 of one slab turned, one image each. Convolutions of 40 and 80 channels take four "
        "fifths of a pass, nearly half of that the 1x1 ones; ReLU, sums and the normalisations before a convolution, "
        "which PyTorch runs one by one, take the rest."
    ),
    "discs-hourglass-starter: spine MR": (
        "the network takes nine tenths, at half of its own roofline (see there); resampling and peaks take the rest."
    ),
    "hemorrhage-slexnet-starter: head CT": (
        "the network takes 70 to 75 % of the task; finding the brain, density rules, bone edges, components and "
        "intervals take the rest, on the scan's own grid."
    ),
    "hemorrhage-drunet-starter: head CT": (
        "the network takes 70 to 75 % of the task, at a third of its own roofline; finding the brain, density rules, "
        "bone edges, components and intervals take the rest, on the scan's own grid."
    ),
    "hemorrhage-drunet-starter": (
        "convolutions and products take half of a pass; with 4 to 16 channels on the first levels they cannot fill the "
        "vector units. ELU takes a fifth, in five steps since PyTorch fuses it with no convolution; sums of the two "
        "halves, pooling and the way between layouts take the rest."
    ),
    "Perfusion, bSVD maps": (
        "60 % of the time are matrix products through the dozen singular values that the cut leaves: sums so short "
        "reach a third of a convolution's rate. Search of the highest lag, its place between quarters of a frame, "
        "volume and time to peak take the rest, in pieces that stay in the cache."
    ),
    "Perfusion, bSVD peaks": (
        "76 % of the time are matrix products of 45 frames by 49 lags, too small for the rate of a large one; the "
        "search of the highest lag takes the rest."
    ),
    "Perfusion, Gaussian": (
        "the bound is that of reading and writing once. 85 % of the time are products with a banded matrix along j and "
        "i, some 350 operations a voxel, so that it is bound by operations; taps one by one, as in scipy, take longer."
    ),
    "DICOM load, CT": (
        "the bound is that of the pixels. Half of the time are the headers: 200 files are opened, walked, and their "
        "geometry compared. The pixels, read straight into the volume, take a third, HU and their check half of that."
    ),
    "DICOM load, perfusion": (
        "the bound is that of the pixels. Two thirds of the time are the headers of 720 files: each is opened, walked, "
        "and its time, place and scaling compared. The pixels, 128 KB a file, take a fifth."
    ),
    "Training patch": (
        "the bound is that of the patch alone, copied once. HDF5 reads whole chunks, 81 of 32 KB for a patch of 1 MB, "
        "by a call of the system each, which takes two fifths of the time; their check sums take a third, h5py a fifth."
    ),
    "Dice, HD95, NSD and components": (
        "the bound is that of reading both masks once. 80 % of the time are searches of a k-d tree for the nearest of "
        "the other surface's elements, which jump in memory; exactness asks for them."
    ),
}


def reason(what: str) -> str | None:
    """The reason of a task or starter: that of the longest beginning that fits; None if none is known."""
    fitting = [start for start in REASONS if what.startswith(start)]
    return REASONS[max(fitting, key=len)] if fitting else None
