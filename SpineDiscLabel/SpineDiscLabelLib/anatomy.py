"""How a spine is built, as far as naming its discs needs it: the order of the discs, how far apart, which way.

The step of a vertebra runs from the centre of the disc below it to the centre of the disc above it. Its mean length
holds for an adult of middle size; a spine's own size is one factor on all of them. T10 to L5: medians over 17 patients
of the SPIDER lumbar MR set (van der Graaf et al. 2024; sizes removed case by case; residual SD 2.5 to 6 %). C3 to T9:
posterior heights of the vertebral bodies (Panjabi et al. 1991) plus disc heights of 4.5 to 5.5 mm, scaled by 3 % so
that both sources agree at T10 to T12. C2: from the joint of C1 and C2 to the disc C2/C3.

The tilt of a step is its angle in the sagittal plane against the patient's long axis, in degrees, positive where the
upper disc lies further anterior. L5 to T10 measured on the same patients (lying); above, the mean curves of a person
lying on the back: kyphosis of 30 degrees, cervical lordosis of 20.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np

from SpineDiscLabelLib.discs import DISC_COUNT, DISC_NAMES, FIRST_DISC, LAST_DISC

#: Mean length of a step in mm at size 1, by vertebra.
STEP_MM = {
    "C2": 18.0, "C3": 17.0, "C4": 16.6, "C5": 16.5, "C6": 16.7, "C7": 18.2,
    "T1": 20.0, "T2": 21.2, "T3": 21.6, "T4": 22.0, "T5": 22.4, "T6": 23.0,
    "T7": 23.8, "T8": 24.6, "T9": 25.6, "T10": 26.9, "T11": 27.8, "T12": 30.3,
    "L1": 32.8, "L2": 34.5, "L3": 35.2, "L4": 35.5, "L5": 34.7,
}  # fmt: skip
#: Mean tilt of a step in degrees, by vertebra.
TILT_DEG = {
    "C2": -1.0, "C3": 1.0, "C4": 3.0, "C5": 6.0, "C6": 10.0, "C7": 14.0,
    "T1": 17.0, "T2": 17.0, "T3": 15.0, "T4": 12.0, "T5": 8.0, "T6": 4.0,
    "T7": 0.0, "T8": -4.0, "T9": -8.0, "T10": -12.0, "T11": -14.0, "T12": -15.0,
    "L1": -15.0, "L2": -12.5, "L3": -6.5, "L4": 4.0, "L5": 18.0,
}  # fmt: skip
#: Relative SD of a step about its mean times the spine's size. C2's upper point is a joint, marked less uniformly.
STEP_SPREAD = 0.06
STEP_SPREAD_C2 = 0.12
#: SD of a tilt between people, of the bend from one step to the next, and of both to the side, in degrees.
TILT_SD_DEG, BEND_SD_DEG, LATERAL_BEND_SD_DEG = 10.0, 6.5, 6.0
#: Smallest and largest size of a spine that is looked for (a child of two years, a very tall adult), and the SD of
#: adults' sizes (measured: 0.09).
SMALLEST_SIZE, LARGEST_SIZE, SIZE_SD = 0.5, 1.3, 0.1


@dataclass(frozen=True, eq=False)
class SpineForm:
    """One way a spine can be built, with its discs from above.

    Attributes:
        title: in words.
        share: share of people with it.
        numbers: disc numbers, counted from above as the Spinal Cord Toolbox does.
        names: their names.
        step_mm: mean distance from the disc before at size 1; 0 for the first.
        spread: relative SD of these.
        tilt_deg: mean tilt of these steps.
        looks_like: per disc, the numbers of the usual discs that it may look like to a network.
    """

    title: str
    share: float
    numbers: tuple[int, ...]
    names: tuple[str, ...]
    step_mm: np.ndarray
    spread: np.ndarray
    tilt_deg: np.ndarray
    looks_like: tuple[tuple[int, ...], ...]


def _form(title: str, share: float, lumbar: int) -> SpineForm:
    """A spine with this many lumbar vertebrae. Extra or missing ones repeat or leave out the step of L4."""
    upper = [f"C{n}" for n in range(2, 8)] + [f"T{n}" for n in range(1, 13)]
    usual_lumbar = {4: ["L1", "L2", "L3", "L5"], 5: [], 6: ["L1", "L2", "L3", "L4", "L4", "L5"]}[lumbar]
    steps = upper + (usual_lumbar or [f"L{n}" for n in range(1, 6)])
    vertebrae = [*upper, *(f"L{n}" for n in range(1, lumbar + 1)), "S1"]
    names = ["C1/C2", *(f"{above}/{below}" for above, below in pairwise(vertebrae))]
    numbers = range(FIRST_DISC, FIRST_DISC + len(names))
    shift, first_lumbar = LAST_DISC - numbers[-1], FIRST_DISC + len(upper) + 1
    looks = [tuple(sorted({n, n + shift})) if n >= first_lumbar else (n,) for n in numbers]
    looks[-1] = (LAST_DISC,)
    return SpineForm(
        title, share, tuple(numbers), tuple(names),
        np.array([0.0, *(STEP_MM[v] for v in steps)]),
        np.array([STEP_SPREAD, *(STEP_SPREAD_C2 if v == "C2" else STEP_SPREAD for v in steps)]),
        np.array([0.0, *(TILT_DEG[v] for v in steps)]),
        tuple(looks),
    )  # fmt: skip


#: The usual spine first. Shares of people with 23 or 25 presacral vertebrae: about 4 % each way in whole-spine series
#: that count from C2 (such as Akbar et al. 2010; partly fused transitional vertebrae count where they move).
FORMS = (
    _form("five lumbar vertebrae", 0.92, 5),
    _form("six lumbar vertebrae (L6)", 0.04, 6),
    _form("four lumbar vertebrae", 0.04, 4),
)
USUAL = FORMS[0]
assert USUAL.names == tuple(DISC_NAMES.values()) and len(USUAL.names) == DISC_COUNT

#: Regions that angles are given for: name -> (upper disc, lower disc), whose tangents make the angle.
REGIONS = {
    "Cervical lordosis": ("C2/C3", "C7/T1"),
    "Thoracic kyphosis": ("T1/T2", "T12/L1"),
    "Lumbar lordosis": ("T12/L1", "L5/S1"),
}


@cache
def number_of(name: str) -> int | None:
    """Disc number of a name in any form (``"L4/L5"`` 24, ``"L6/S1"`` 26, ``"L4/S1"`` 24), or None."""
    for form in FORMS:
        if name in form.names:
            return form.numbers[form.names.index(name)]
    return None
