"""DICOM folders to volumes: the whole series, rightly placed, in HU; or one sentence why not.

Our own reader on pydicom, because the usual ones measured 8 of 11 faulty series wrong without an error
(performance_and_reliability.md 4.2). Steps: ``dicom_headers`` scans, ``dicom_series`` groups and chooses,
``dicom_geometry`` sorts and checks, ``dicom_pixels`` reads.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from NeuraxisLib.dicom_geometry import Layout, lay_out
from NeuraxisLib.dicom_headers import Scan, is_dicom_file, scan_folder, skipped_text
from NeuraxisLib.dicom_pixels import read_pixels, same_pixels
from NeuraxisLib.dicom_series import Series, SeriesInfo, check_one_patient, choose_series, group_series
from NeuraxisLib.errors import GeometryError, InputError
from NeuraxisLib.task import Progress
from NeuraxisLib.volume import Volume
from NeuraxisLib.volume_checks import check_volume

__all__ = ["SeriesInfo", "list_series", "read_series"]


def list_series(folder: str | os.PathLike, progress: Progress | None = None) -> list[SeriesInfo]:
    """What series a folder holds, localizers and screenshots included (their ``excluded`` says why not).

    Raises:
        InputError: no DICOM images there, or only damaged ones.
    """
    scan = scan_folder(_existing(Path(folder)), progress or Progress())
    groups = group_series(scan.headers)
    if not groups:
        raise _damaged(scan.damaged)
    return [series.info for series in groups]


def read_series(
    path: str | os.PathLike,
    series: str | None = None,
    allow_gaps: bool = False,
    progress: Progress | None = None,
) -> Volume:
    """Read one DICOM series as a volume: CT in HU (int16), slices sorted by position, shear and unequal gaps kept.

    Args:
        path: a folder (searched with its subfolders), or one DICOM file, which stands for its series.
        series: key, series number, UID or description; None takes the axial soft-kernel series with most slices.
        allow_gaps: measure across missing slices, with a warning, instead of refusing.
        progress: told how far reading is; may cancel.

    Returns:
        Volume with ``meta``: modality, kernel, description, image_type, thickness_mm, tilt_deg, series_key,
        ``warnings`` (sentences that bear on the measurement), ``notes`` (sentences that do not), ``dropped`` (what
        was left out: kind -> count).

    Raises:
        InputError: no images, damaged files, colour or screenshot pixels, values that are not HU.
        GeometryError: geometry missing or contradictory, slices missing or double.
        SeriesChoiceError: several series would do.
        DependencyError: a decoder for compressed pixels is not installed.
    """
    path, progress = _existing(Path(path)), progress or Progress()
    if path.is_file() and not is_dicom_file(path):
        raise InputError(f"'{path.name}' is not an image known here; choose NIfTI, NRRD, MetaImage or DICOM.")
    folder = path if path.is_dir() else path.parent
    scan = scan_folder(folder, progress.part(0.0, 0.3))
    groups = group_series(scan.headers)
    if path.is_file() and series is None:
        groups = [entry for entry in groups if any(header.path == path for header in entry.headers)] or groups
    if not groups:
        raise _damaged(scan.damaged)
    chosen = choose_series(groups, series)
    _check_damage(scan, chosen)
    name = f"Series {chosen.info.key}"
    _check_stray(chosen, name)
    check_one_patient(chosen.headers, name)
    layout = lay_out(chosen.headers, same_pixels, name, allow_gaps)
    array, notes = read_pixels(layout.headers, progress.part(0.3, 1.0), name)
    volume = Volume(
        array=array,
        ijk_to_ras=layout.ijk_to_ras,
        unit="HU" if chosen.info.modality == "CT" else "",
        slice_origins_ras=layout.slice_origins_ras,
        meta=_meta(chosen, layout, notes, scan, groups),
    )
    progress(1.0, "Reading DICOM slices")
    return check_volume(volume, name)


def _existing(path: Path) -> Path:
    if not path.exists():
        raise InputError(f"'{path.name}' was not found; check the name and the folder.")
    return path


def _damaged(paths: list[Path]) -> InputError:
    more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    return InputError(f"'{paths[0].name}'{more} cannot be read as DICOM (damaged or empty); send the series again.")


def _check_damage(scan: Scan, chosen: Series) -> None:
    """A damaged file beside the series' images may be one of them, so it is never passed over."""
    folders = {header.path.parent for header in chosen.headers}
    beside = [path for path in scan.damaged if path.parent in folders]
    if beside:
        raise _damaged(beside)


def _check_stray(chosen: Series, name: str) -> None:
    if not chosen.stray:
        return
    odd, usual = chosen.stray[0], chosen.headers[0]
    words = {
        "rows": "matrix size", "columns": "matrix size", "pixel_spacing": "pixel spacing",
        "orientation": "orientation", "kernel": "kernel", "bits_allocated": "pixel type", "modality": "modality",
    }  # fmt: skip
    word = next((word for word in words if getattr(odd, word) != getattr(usual, word)), "modality")
    fault = f"no {words[word]}" if getattr(odd, word) is None else f"another {words[word]} than the rest"
    raise GeometryError(f"{name} is not one volume: '{odd.name}' has {fault}; send or export the series again.")


def _meta(chosen: Series, layout: Layout, notes: list[str], scan: Scan, groups: list[Series]) -> dict:
    info, warnings, notes = chosen.info, list(layout.warnings), list(notes)
    dropped = Counter(scan.skipped)
    for entry in groups:
        if entry.info.excluded == "localizer":
            dropped["localizer"] += len(entry.headers)
        elif entry is not chosen:
            dropped["image from other series"] += len(entry.headers)
    if dropped:
        notes.append(f"Left out: {skipped_text(dropped)}.")
    if any(header.lossy for header in layout.headers):
        warnings.append("The images were compressed with loss; fine detail and HU may be off.")
    if info.modality == "CT" and any(header.contrast for header in layout.headers):
        warnings.append("The scan was taken with contrast medium, which is as bright as blood; look at every finding.")
    if scan.damaged:
        warnings.append(f"{len(scan.damaged)} damaged file(s) in other folders were left out.")
    return {
        "format": "DICOM",
        "modality": info.modality,
        "kernel": info.kernel,
        "description": info.description,
        "image_type": info.image_type,
        "thickness_mm": info.thickness_mm,
        "tilt_deg": round(layout.tilt_deg, 2),
        "series_key": info.key,
        "warnings": warnings,
        "notes": notes,
        "dropped": dict(dropped),
    }
