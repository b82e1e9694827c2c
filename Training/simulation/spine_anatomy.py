"""The shape of a random spine: sizes, curvature, counts and ill discs, as numbers; nothing is painted here.

A spine is built from the sacrum upwards in the sagittal plane. Points are (p, z) in mm: p grows to the front, z
upwards, and every vertebra has its own x (scoliosis). ``tilt`` is the angle in radians by which the up direction of a
vertebra leans to the front. Sizes are those of an average adult, from textbooks of anatomy, scaled to the person.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

#: Vertebra -> (height, depth, width of the body, height of the disc below it) in mm.
SIZES_MM = {
    "C2": (20, 16, 18, 5.0), "C3": (14, 16, 19, 5.0), "C4": (14, 16, 20, 5.0), "C5": (13.5, 16.5, 21, 5.2),
    "C6": (13.5, 17, 22, 5.5), "C7": (15, 17.5, 24, 5.2), "T1": (16.5, 18, 27, 4.4), "T2": (18, 18.5, 27, 4.0),
    "T3": (18.5, 19.5, 26, 3.8), "T4": (19, 21, 25, 3.8), "T5": (19.5, 22.5, 25, 4.0), "T6": (20, 24, 26, 4.4),
    "T7": (20.5, 26, 27, 4.8), "T8": (21, 27, 28.5, 5.0), "T9": (21.5, 28, 30, 5.5), "T10": (22.5, 29, 32, 6.0),
    "T11": (23.5, 29.5, 35, 6.8), "T12": (25, 30, 39, 7.8), "L1": (26.5, 31, 42, 8.8), "L2": (27.5, 32.5, 43.5, 10.0),
    "L3": (28, 33.5, 46, 11.0), "L4": (27.5, 34.5, 49, 11.8), "L5": (26.5, 34.5, 52, 11.0),
    "S1": (29, 31, 50, 2.6), "S2": (25, 22, 40, 1.6), "S3": (20, 16, 32, 1.0), "S4": (17, 12, 26, 0.8),
    "S5": (15, 9, 20, 0.8),
}  # fmt: skip
#: Canal: (anteroposterior, transverse) in mm at the vertebra where the row begins.
CANAL_MM = {"C2": (17, 22), "C4": (14, 24), "C7": (14, 24), "T2": (15, 18), "T8": (15.5, 17), "T12": (17, 21),
            "L2": (17, 23), "L5": (17, 27), "S1": (13, 26), "S2": (9, 20), "S3": (5, 14), "S5": (2.5, 8)}  # fmt: skip
#: Cord: (anteroposterior, transverse) in mm.
CORD_MM = {"C2": (8.5, 11), "C5": (8, 13.5), "T1": (7, 10), "T6": (6.2, 8), "T11": (7, 9), "T12": (8, 9.5)}
#: Sagittal curve of lying adults in degrees, that of the discs alone where bodies are wedged: mean, deviation.
SACRAL_SLOPE, LUMBAR_LORDOSIS, THORACIC_KYPHOSIS, CERVICAL_LORDOSIS = (36, 9), (42, 11), (20, 9), (12, 12)
#: Share of the lumbar lordosis at each disc from L5/S1 up to T12/L1; the bodies of L5 and L4 are wedged too.
_LORDOSIS_SHARES = (0.28, 0.24, 0.18, 0.14, 0.10, 0.06)
_SACRAL = ("S1", "S2", "S3", "S4", "S5")


@dataclass
class Vertebra:
    """One body. Mutable while a spine is being made.

    Attributes:
        name: C2 ... S5. number: of the instance in the painted maps.
        centre: (p, z). tilt: radians. x_mm: where its middle lies from side to side.
        height, depth, width: of the body in mm. front, back: share of the height at its front and back (wedging).
        concave: mm that each endplate sinks in its middle. marks: lesions, ``(kind, *numbers)`` in shares of the body.
    """

    name: str
    number: int
    height: float
    depth: float
    width: float
    centre: np.ndarray = field(default_factory=lambda: np.zeros(2))
    tilt: float = 0.0
    x_mm: float = 0.0
    front: float = 1.0
    back: float = 1.0
    concave: float = 0.8
    marks: list[tuple] = field(default_factory=list)

    @property
    def region(self) -> str:
        """C, T, L or S."""
        return self.name[0]

    def place(self, forward: np.ndarray | float, up: np.ndarray | float) -> np.ndarray:
        """(n, 2) points (p, z) of local coordinates in mm, measured from the centre."""
        local = np.stack(np.broadcast_arrays(np.asarray(forward, float), np.asarray(up, float)), axis=-1)
        cos, sin = np.cos(self.tilt), np.sin(self.tilt)
        return self.centre + local @ np.array([[cos, -sin], [sin, cos]])

    def edge(self, upper: bool) -> tuple[np.ndarray, np.ndarray]:
        """(forward, up) of an endplate from back to front, 9 local points."""
        t = np.linspace(0, 1, 9)
        sign = 1.0 if upper else -1.0
        half = self.height / 2 * (self.back + (self.front - self.back) * t)
        return (t - 0.5) * self.depth, sign * (half - self.concave * np.sin(np.pi * t) ** 0.8)


@dataclass
class Disc:
    """The disc between ``upper`` and ``lower``; ``value`` is its number in Spinal Cord Toolbox, 0 if it has none.

    ``health`` 1 is a young disc, 0 a black one. ``bulge`` in mm beyond the bodies at the back. ``number`` is that of
    the instance in the painted maps. ``void``: gas or calcification within.
    """

    upper: Vertebra
    lower: Vertebra
    value: int
    number: int
    height: float
    wedge: float
    health: float = 1.0
    bulge: float = 0.0
    void: bool = False

    @property
    def centre(self) -> np.ndarray:
        """(p, z): centre of area between the endplates, in the middle of the disc from side to side."""
        return centroid(self.outline())

    @property
    def x_mm(self) -> float:
        """Where its middle lies from side to side."""
        return (self.upper.x_mm + self.lower.x_mm) / 2

    def outline(self) -> np.ndarray:
        """(n, 2) points (p, z) around the disc."""
        above = self.upper.place(*self.upper.edge(False))
        below = self.lower.place(*self.lower.edge(True))
        front = (above[-1] + below[-1]) / 2 + self.upper.place(0.8, 0) - self.upper.centre
        back = (above[0] + below[0]) / 2 - (self.upper.place(0.4 + self.bulge, 0) - self.upper.centre)
        return np.concatenate([above, front[None], below[::-1], back[None]])


@dataclass
class Spine:
    """A whole spine, from the sacrum up to C2, and what the painter needs to know of the person.

    Attributes:
        vertebrae: from S5 up to C2. discs: from S4/S5 up to C2/C3; only presacral ones have a value.
        size: 1 is an average adult. conus: number of the vertebra at whose middle the cord ends.
        canal_scale, cord_scale: of the average. skull: (p, z) of the middle of the foramen magnum.
    """

    vertebrae: list[Vertebra]
    discs: list[Disc]
    size: float
    conus: str
    canal_scale: float
    cord_scale: float
    straight: bool

    def named(self, name: str) -> Vertebra:
        """The vertebra of that name; the last lumbar one for an L5 that is missing."""
        bodies = {body.name: body for body in self.vertebrae}
        return bodies[name] if name in bodies or name != "L5" else bodies["L4"]

    def points(self) -> dict[int, np.ndarray]:
        """(n, 3) points (x, p, z) of every numbered disc by its number; C1/C2 (2) is the base of the dens.

        Where a person has a lumbar vertebra too many, two discs carry one number.
        """
        found: dict[int, list] = {2: [(self.vertebrae[-1].x_mm, *self.dens_base())]}
        for disc in self.discs:
            if disc.value:
                found.setdefault(disc.value, []).append((disc.x_mm, *disc.centre))
        return {value: np.array(points) for value, points in found.items()}

    def dens_base(self) -> np.ndarray:
        """Where the dens rises from the body of C2."""
        axis = self.named("C2")
        return axis.place(0.0, axis.height * 0.5)


def centroid(polygon: np.ndarray) -> np.ndarray:
    """Centre of area of a polygon (n, 2)."""
    after = np.roll(polygon, -1, axis=0)
    cross = polygon[:, 0] * after[:, 1] - after[:, 0] * polygon[:, 1]
    return ((polygon + after) * cross[:, None]).sum(axis=0) / (3 * cross.sum())


def presacral_names(lumbar: int = 5) -> list[str]:
    """C2 ... L5, with as many lumbar vertebrae."""
    own = [name for name in SIZES_MM if name[0] in "CT"]
    return own + [f"L{number}" for number in range(1, lumbar + 1)]


def draw_spine(rng: np.random.Generator, straight: bool = False) -> Spine:
    """A random spine.

    Args:
        straight: as the averaged templates, whose canal is a straight line.
    """
    size = float(np.clip(rng.normal(1.0, 0.08), 0.82, 1.2) if rng.random() < 0.9 else rng.uniform(0.6, 0.85))
    lumbar = 5 if straight else int(rng.choice([4, 5, 6], p=[0.03, 0.93, 0.04]))
    names = presacral_names(lumbar)[::-1]
    curved = 0.12 if straight else 1.0
    from_below = enumerate([*_SACRAL[::-1], *names], start=1)
    vertebrae = [_vertebra(name, number, size, curved, rng) for number, name in from_below]
    if not straight:
        _fracture(vertebrae, rng)
    discs = _discs(vertebrae, rng)
    _number(discs, lumbar)
    _curve(vertebrae, discs, curved, rng)
    _stack(vertebrae, discs)
    _scoliosis(vertebrae, 0.1 if straight else 1.0, rng)
    conus = str(rng.choice(["T12", "L1", "L2"], p=[0.25, 0.55, 0.2]))
    scale = float(np.exp(rng.normal(0, 0.09)))
    return Spine(vertebrae, discs, size, conus, scale, float(np.exp(rng.normal(0, 0.08))), straight)


def _vertebra(name: str, number: int, size: float, curved: float, rng: np.random.Generator) -> Vertebra:
    height, depth, width, _ = _sizes(name)
    scales = size * np.exp(rng.normal(0, 0.03, 3))
    body = Vertebra(name, number, height * scales[0], depth * scales[1], width * scales[2])
    body.concave = float(rng.uniform(0.2, 1.6) * body.height / 25)
    if name[0] == "T":
        body.front = 1.0 - curved * abs(rng.normal(0.03, 0.025))
    if name in ("L5", "L6"):
        body.front, body.back = 1.0 + 0.06 * curved, 1.0 - 0.08 * curved
    return body


def _sizes(name: str) -> tuple[float, float, float, float]:
    return SIZES_MM.get(name, SIZES_MM["L5"])  # a sixth lumbar vertebra is built like the fifth


def _fracture(vertebrae: list[Vertebra], rng: np.random.Generator) -> None:
    """Wedge, biconcave or flat bodies in a few people, in place, before the bodies are stacked."""
    if rng.random() > 0.15:
        return
    able = [body for body in vertebrae if body.region in "TL"]
    for number in rng.choice(len(able), size=int(rng.integers(1, 4)), replace=False):
        body, kind = able[number], rng.choice(["wedge", "biconcave", "flat"], p=[0.55, 0.3, 0.15])
        if kind == "wedge":
            body.front = float(rng.uniform(0.5, 0.85))
        elif kind == "biconcave":
            body.concave = float(rng.uniform(0.1, 0.28) * body.height)
        else:
            body.height *= rng.uniform(0.5, 0.75)
        if rng.random() < 0.4:
            body.marks.append(("oedema", 1.0, float(rng.uniform(0.2, 0.6)), 0.0, 1.0))


def _discs(vertebrae: list[Vertebra], rng: np.random.Generator) -> list[Disc]:
    """Discs from S4/S5 upwards, with random height and health."""
    age = rng.beta(2.0, 2.0)  # 0 young, 1 old
    tall = float(np.exp(rng.normal(0, 0.12)))
    discs = []
    for lower, upper in pairwise(vertebrae):
        height = _sizes(upper.name)[3] * tall * np.exp(rng.normal(0, 0.12)) * upper.height / _sizes(upper.name)[0]
        load = 1.0 if upper.region in "LC" else 0.7
        health = float(np.clip(1.15 - age * load * rng.uniform(0.4, 1.5), 0, 1))
        if upper.region != "S" and health < 0.35:
            height *= rng.uniform(0.35, 0.95)
        if upper.name == "S1" and rng.random() < 0.12:  # a first sacral disc that is well formed
            height *= rng.uniform(1.5, 2.6)
        if upper.name == "L5" and rng.random() < 0.05:  # a rudimentary last disc
            height *= 0.45
        disc = Disc(upper, lower, 0, len(vertebrae) + lower.number, max(height, 0.6), 0.0, health)
        disc.bulge = float(rng.gamma(1.2, 0.9)) if health < 0.7 and upper.region != "S" else 0.0
        disc.void = upper.region != "S" and health < 0.25 and rng.random() < 0.2
        discs.append(disc)
    return discs


def _number(discs: list[Disc], lumbar: int) -> None:
    """Numbers of Spinal Cord Toolbox (3 is C2/C3, 25 is L5/S1): from the sacrum below T12, from C2 above.

    So people count who see only a part of the spine; with four or six lumbar vertebrae the two disagree at T12/L1,
    where one number is missing or given twice.
    """
    presacral = [disc for disc in discs if disc.upper.region != "S"]
    for number, disc in enumerate(presacral):
        from_top = 2 + len(presacral) - number
        disc.value = 25 - number if number < lumbar else from_top


def _curve(vertebrae: list[Vertebra], discs: list[Disc], amount: float, rng: np.random.Generator) -> None:
    """Wedge angles of discs (radians; positive opens to the front), and of the sacrum."""
    slope, lumbar, thoracic, cervical = (
        np.deg2rad(rng.normal(*said)) * amount
        for said in (SACRAL_SLOPE, LUMBAR_LORDOSIS, THORACIC_KYPHOSIS, CERVICAL_LORDOSIS)
    )
    cervical += np.deg2rad(rng.choice([0.0, rng.uniform(-10, 30)])) * amount
    vertebrae[4].tilt = slope
    sacral = np.deg2rad(rng.uniform(5, 17)) * (amount if amount < 1 else 1.0)
    shares = iter(_LORDOSIS_SHARES)
    for disc in discs:
        region = disc.upper.region
        if region == "S":
            disc.wedge = -sacral  # the sacrum bends forward on its way up
        elif region == "L":
            disc.wedge = lumbar * next(shares, 0.0)
        elif region == "T":
            disc.wedge = -thoracic / 11 if disc.upper.name != "T12" else lumbar * 0.03
        else:
            disc.wedge = cervical / 5
        disc.wedge += amount * np.deg2rad(rng.normal(0, 1.2))


def _stack(vertebrae: list[Vertebra], discs: list[Disc]) -> None:
    """Put the bodies on top of each other: S1 at the origin, the sacrum below, the rest above."""
    first = next(number for number, body in enumerate(vertebrae) if body.name == "S1")
    for number in range(first, 0, -1):
        upper, lower, disc = vertebrae[number], vertebrae[number - 1], discs[number - 1]
        _join(upper, lower, disc, -1.0)
    for disc, upper in zip(discs[first:], vertebrae[first + 1 :]):
        _join(disc.lower, upper, disc, 1.0)


def _join(known: Vertebra, other: Vertebra, disc: Disc, up: float) -> None:
    """Place ``other`` above (up = 1) or below (-1) ``known`` across the disc, backs aligned."""
    wedged = np.arctan2((other.front - other.back) * other.height, other.depth)  # half above, half below the middle
    known_wedge = np.arctan2((known.front - known.back) * known.height, known.depth)
    turn = disc.wedge + wedged / 2 + known_wedge / 2
    other.tilt = known.tilt - up * turn
    between = (known.tilt + other.tilt) / 2
    edge = known.place((other.depth - known.depth) / 2, up * known.height / 2)
    direction = np.array([np.sin(between), np.cos(between)])
    away = np.array([np.sin(other.tilt), np.cos(other.tilt)])
    other.centre = edge + up * (direction * disc.height + away * other.height / 2)


def _scoliosis(vertebrae: list[Vertebra], amount: float, rng: np.random.Generator) -> None:
    """Side to side: a slow sine, strong in a few people."""
    strength = amount * (rng.uniform(8, 35) if rng.random() < 0.12 else rng.gamma(1.5, 1.2))
    phase, waves = rng.uniform(0, 2 * np.pi), rng.uniform(0.6, 1.6)
    lean = amount * rng.normal(0, 0.012)
    heights = np.array([body.centre[1] for body in vertebrae])
    share = (heights - heights[0]) / np.ptp(heights)
    for body, at, z in zip(vertebrae, share, heights):
        body.x_mm = float(strength * (np.sin(2 * np.pi * waves * at + phase) - np.sin(phase)) + lean * z)


def along(spine: Spine, table: dict[str, tuple[float, float]], column: int) -> np.ndarray:
    """A size from a table given at some vertebrae, interpolated to all of them by their order (S5 first)."""
    names = [body.name for body in spine.vertebrae]
    known = sorted((names.index(name), sizes[column]) for name, sizes in table.items() if name in names)
    return np.interp(np.arange(len(names)), *zip(*known)) * spine.size
