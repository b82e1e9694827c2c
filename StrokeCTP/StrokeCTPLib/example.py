"""A small case of the stroke task: a simulated head with one stroke of known volume, as no real scan may be passed on.

An elliptical skull holds brain of one kind, two arteries and a sinus. On the patient's left, tissue gets two fifths of
the flow of the other side, 4 s late; a part of it, the core, gets a tenth.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from NeuraxisLib.exchange import SUFFIX, write_exchange
from NeuraxisLib.task import Example
from NeuraxisLib.volume import Volume

if TYPE_CHECKING:
    from NeuraxisLib.result import Result

#: (slices, rows, columns) and (column, row, slice) in mm.
SHAPE, SPACING_MM = (4, 72, 72), (2.8, 2.8, 10.0)
TIMES_S = np.arange(42) * 1.5
#: (CBF mL/100 g/min, CBV mL/100 g, delay s): healthy, hypoperfused, core.
STAGES = ((50.0, 4.0, 0.0), (20.0, 3.8, 4.0), (5.0, 1.0, 6.0))
NOISE_HU, SEED = 2.0, 0
#: The volumes that are found may be off by this factor.
TOLERANCE = 1.3


def example(folder: Path) -> Example:
    """Writes the frames of the simulated head."""
    frames, stage = simulated_head()
    path = write_exchange(frames, folder / f"simulated{SUFFIX}")
    voxel_ml = float(np.prod(SPACING_MM)) / 1000
    true_ml = {"Hypoperfused volume": voxel_ml * (stage > 0).sum(), "Core volume": voxel_ml * (stage == 2).sum()}
    return Example({"perfusion": path}, lambda result: _fault(result, true_ml), {"motion": "off"})


def simulated_head() -> tuple[Volume, np.ndarray]:
    """(frames in HU, stage of every voxel: 0 healthy or no brain, 1 hypoperfused, 2 core)."""
    k, j, i = (np.arange(n) - (n - 1) / 2 for n in SHAPE)
    x, y, z = (i * SPACING_MM[0])[None, None], (j * SPACING_MM[1])[None, :, None], (k * SPACING_MM[2])[:, None, None]
    radius = np.sqrt((x / 66) ** 2 + (y / 82) ** 2) + 0 * z
    inside = radius < 1
    stage = np.zeros(SHAPE, int)
    stage[inside & ((x - 40) ** 2 / 26**2 + y**2 / 40**2 < 1)] = 1
    stage[inside & ((x - 40) ** 2 / 14**2 + y**2 / 22**2 < 1)] = 2
    baseline = np.select([inside, radius < 1.12, radius < 1.18], [35.0, 900.0, 20.0], -1000.0)
    frames = np.repeat(baseline[None], len(TIMES_S), axis=0)
    for number, (cbf, cbv, delay_s) in enumerate(STAGES):
        frames[:, inside & (stage == number)] += tissue_hu(cbf, cbv, delay_s)[:, None]
    for side in (-1, 1):
        frames[:, (abs(x - side * 14) < 4) & (abs(y + 50) < 4) & (abs(z) < 20)] = (40 + 0.5 * bolus_hu())[:, None]
    frames[:, (abs(x) < 5) & (abs(y - 74) < 5) & (abs(z) < 99)] = (45 + bolus_hu(4.0))[:, None]
    frames += np.random.default_rng(SEED).normal(0.0, NOISE_HU, frames.shape)
    matrix = np.diag([-SPACING_MM[0], -SPACING_MM[1], SPACING_MM[2], 1.0])
    return Volume(np.rint(frames).astype(np.int16), matrix, "HU", frame_times_s=TIMES_S), stage


def bolus_hu(delay_s: float = 0.0, times_s: np.ndarray = TIMES_S) -> np.ndarray:
    """(t,) a gamma variate that arrives after 10 s, peaks 6 s later at 220 HU."""
    since = np.clip(times_s - 10.0 - delay_s, 0.0, None) / 6.0
    return 220.0 * (since * np.exp(1 - since)) ** 3


def tissue_hu(cbf: float, cbv: float, delay_s: float) -> np.ndarray:
    """(t,) enhancement of tissue with an exponential residue function (indicator dilution, density 1.04 g/mL)."""
    step_s = 0.1
    fine = np.arange(0.0, TIMES_S[-1] + step_s, step_s)
    residue = np.exp(-fine / (60 * cbv / cbf))
    curve = np.convolve(bolus_hu(delay_s, fine), residue)[: len(fine)] * step_s
    return np.interp(TIMES_S, fine, 1.04 * cbf / 6000 * curve)


def _fault(result: Result, true_ml: dict[str, float]) -> str:
    for name, true in true_ml.items():
        found = next((m.value for m in result.measurements if m.name == name), None) or 0.0
        if not true / TOLERANCE <= found <= true * TOLERANCE:
            return f"{name}: {found:.0f} mL instead of {true:.0f} mL were found; please report it with the log."
    return ""
