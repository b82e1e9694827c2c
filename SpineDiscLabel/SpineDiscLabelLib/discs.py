"""The numbers and names of the discs, as the Spinal Cord Toolbox counts them (2 = C1/C2 ... 25 = L5/S1)."""

from __future__ import annotations

from itertools import pairwise

#: Numbers of the first and the last disc that a whole spine has: C1/C2 and L5/S1.
FIRST_DISC, LAST_DISC = 2, 25
#: How many there are between them, both counted.
DISC_COUNT = LAST_DISC - FIRST_DISC + 1
_VERTEBRAE = (*(f"C{n}" for n in range(1, 8)), *(f"T{n}" for n in range(1, 13)), *(f"L{n}" for n in range(1, 6)), "S1")
#: Disc number -> name, from above: ``{2: "C1/C2", 3: "C2/C3", ... 8: "C7/T1", ... 20: "T12/L1", ... 25: "L5/S1"}``.
DISC_NAMES = {
    number: f"{above}/{below}" for number, (above, below) in enumerate(pairwise(_VERTEBRAE), start=FIRST_DISC)
}
