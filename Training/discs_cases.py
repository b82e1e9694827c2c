"""Cases of a store as real spines, and as painted ones where somebody drew vertebrae, canal and discs.

How a store holds a spine: see :mod:`Training.layouts.spine_labels`.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from NeuraxisLib.errors import InputError
from SpineDiscLabelLib.sagittal import sagittal_order
from Training.discs_views import RealSpine
from Training.layouts.spine_labels import VERTEBRA
from Training.simulation.spine_bank import PaintedSpine
from Training.simulation.spine_tissues import Tissue
from Training.store import StoredCase


def real_spine(case: StoredCase) -> RealSpine:
    """The scan of a case in the order that the network sees.

    Raises:
        InputError: the case has no disc centres.
    """
    discs = case.provenance.get("discs")
    if not discs:
        raise InputError(f"'{case.id}' has no disc centres; prepare it with a layout of spines.")
    volume = case.image.regular()
    order = sagittal_order(volume)
    volume = order.apply(volume)
    inverse = np.linalg.inv(volume.ijk_to_ras)
    ijk = np.array([disc[1:] for disc in discs], float) @ inverse[:3, :3].T + inverse[:3, 3]
    spacing = np.array(volume.spacing_mm, float)[::-1]
    labels = None
    if case.truth is not None and (case.truth >= VERTEBRA).any():
        stored = order.apply_array(case.truth)
        labels = np.where(stored >= VERTEBRA, stored - VERTEBRA + 1, 0).astype(np.uint8)
    numbers = [None if disc[0] is None else int(disc[0]) for disc in discs]
    return RealSpine(volume.array.astype(np.float32), labels, spacing, ijk[:, ::-1] * spacing, numbers, case.id)


def painted_from(spine: RealSpine) -> PaintedSpine | None:
    """The label maps of a real spine with its surroundings in classes of brightness; None without labels.

    Spines whose levels are not known cannot be painted, because every painted disc has its number.
    """
    if spine.labels is None or None in spine.numbers or abs(spine.spacing[1] - spine.spacing[2]) > 1e-3:
        return None
    tissue = np.stack([_tissues(plane, labels, spine.spacing[1]) for plane, labels in zip(spine.planes, spine.labels)])
    discs, count = ndimage.label(spine.labels == 3)
    instance = np.where(discs > 0, discs + 100, 0).astype(np.uint8)
    instance[spine.labels == 1] = 1
    health = np.ones(256, np.float32)
    health[101 : 101 + count] = np.linspace(0.2, 1.0, count)
    slices_mm = np.arange(len(tissue)) * spine.spacing[0]
    codes = (tissue.astype(np.uint16) << 8) | instance
    return PaintedSpine(codes, slices_mm, spine.points, np.array(spine.numbers), health, False, float(spine.spacing[1]))


def _tissues(plane: np.ndarray, labels: np.ndarray, pixel_mm: float) -> np.ndarray:
    """Tissues of one slice: fluid and roots, nucleus and annulus, marrow and shell, five classes around."""
    slow = ndimage.gaussian_filter(plane, 30 / pixel_mm) + 0.02 * float(plane.max())
    even = ndimage.gaussian_filter(plane / slow, 0.7)
    levels = np.quantile(even[labels == 0], [0.25, 0.5, 0.7, 0.85])
    tissue = (Tissue.CLASS_A + np.digitize(even, levels)).astype(np.uint8)
    canal, disc, bone = labels == 2, labels == 3, labels == 1
    if canal.any():
        tissue[canal] = np.where(even[canal] > 0.8 * np.median(even[canal]), Tissue.CSF, Tissue.ROOTS)
    if disc.any():
        inner = ndimage.binary_erosion(disc, iterations=2) & (even > np.median(even[disc]))
        tissue[disc] = Tissue.ANNULUS
        tissue[inner] = Tissue.NUCLEUS
    tissue[bone] = Tissue.CORTEX
    tissue[ndimage.binary_erosion(bone)] = Tissue.MARROW
    return tissue
