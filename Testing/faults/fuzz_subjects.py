"""What is fuzzed: for each syntax a good file, the reader that gets its mutants, and what a read mutant must hold.

A mutant may be refused by a named error, or read. One that is read is **silently wrong** where the format holds enough
to know better: a packed NIfTI has a check sum, a model file a hash, a DICOM series its other slices. A byte of an
unpacked voxel or of a lone header, changed to another possible value, nobody can know to be wrong.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    RLELossless,
)

from NeuraxisLib.files import read_volume, write_volume
from NeuraxisLib.volume import Volume
from Testing import dicom_series
from Testing.faults.mutants import mutant, mutant_json
from Testing.project_tree import ROOT


def _nothing_wrong(good: Any, found: Any) -> str:
    """For syntaxes that cannot know."""
    return ""


@dataclass(frozen=True)
class Subject:
    """One syntax.

    Attributes:
        write: puts the good file (and what belongs to it) into a folder; returns its path.
        read: the reader under test, given that path.
        wrong: given what the good and the mutant file gave, says in words what is silently wrong; empty if nothing is.
        header_bytes: where most of the damage goes.
        damage: (bytes of the file, number) -> damaged bytes, for texts that have a form of their own.
    """

    write: Callable[[Path], Path]
    read: Callable[[Path], Any]
    wrong: Callable[[Any, Any], str] = _nothing_wrong
    header_bytes: int = 400
    damage: Callable[[bytes, int], bytes] | None = None

    def mutate(self, data: bytes, number: int) -> bytes:
        """Damaged copy ``number`` of the good file."""
        return self.damage(data, number) if self.damage else mutant(data, number, self.header_bytes)


def scan(dtype: str = "int16") -> Volume:
    """A small oblique image with noise, 6 x 9 x 11 voxels."""
    array = np.random.default_rng(3).integers(-900, 900, (6, 9, 11)).astype(dtype)
    matrix = np.array([[-0.7, 0.05, 0, 30], [0.05, 0.7, 0.2, -40], [0, -0.2, 3.0, 5], [0, 0, 0, 1.0]])
    matrix[:3, :3] = np.linalg.qr(matrix[:3, :3])[0] * [0.7, 0.7, 3.0]
    return Volume(array, matrix, "HU")


def _image(suffix: str, compress: bool = False) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        write_volume(scan(), folder / f"scan.{suffix}", compress=compress)
        return folder / f"scan.{suffix}"

    return write


def _same_image(good: Volume, found: Volume) -> str:
    """For files with a check sum over everything."""
    if found.array.shape != good.array.shape or not np.allclose(found.ijk_to_ras, good.ijk_to_ras, atol=1e-5):
        return "another geometry"
    return "" if np.array_equal(found.array, good.array) else "other voxels"


def _bounded_image(good: Volume, found: Volume) -> str:
    """For files without one: no more voxels than the file has bytes for."""
    return "voxels that the file does not hold" if found.array.size > 4 * good.array.size else ""


# -- DICOM ----------------------------------------------------------------------------------------------------------

_HEIGHTS = np.arange(-90.0, 90.1, 30.0)
_MUTANT = "0004.dcm"


def _dicom(syntax: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / "series").mkdir()
        images = dicom_series.series(_HEIGHTS, matrix=32, pixel_mm=6.8, uid="1.2.826.0.1.3680043.9.1.2")
        for number, image in enumerate(images, start=1):
            image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = f"1.2.826.0.1.3680043.9.1.2.{number}"
            dicom_series.save_in(image, folder / "series" / f"{number:04d}.dcm", syntax)
        return folder / "series" / _MUTANT

    return write


def _read_dicom(path: Path) -> Volume:
    return read_volume(path.parent)


def _wrong_dicom(good: Volume, found: Volume) -> str:
    """The other slices say what is right: how many there are, where they lie, what they show."""
    if found.meta["warnings"] or found.meta["dropped"].get("image from other series"):
        return ""
    if found.array.shape != good.array.shape:
        return f"{found.array.shape} voxels"
    if np.abs(found.origins_ras - good.origins_ras).max() > 1.0:
        return "a slice elsewhere"
    if abs(found.voxel_volumes_ml.sum() / good.voxel_volumes_ml.sum() - 1) > 0.02:
        return "another voxel size"
    changed = (found.array != good.array).reshape(len(good.array), -1).any(axis=1)
    return "other slices changed" if changed.sum() > 1 else ""


# -- models, results, tables, pipes -----------------------------------------------------------------------------------


def _write_model(folder: Path) -> Path:
    import torch

    from NeuraxisLib.models import write_model

    sys.path.append(str(ROOT / "Neuraxis" / "Testing" / "worker_support"))
    from bare_models import write_bare_model

    from NeuraxisLib.models import read_header

    header = read_header(write_bare_model(folder / "bare.safetensors"))
    (folder / "bare.safetensors").unlink()
    weight = torch.arange(60, dtype=torch.float32)
    write_model(folder / "model.safetensors", {"a.weight": weight.reshape(3, 20), "b": weight[:7] / 3}, header)
    return folder / "model.safetensors"


def _read_model(path: Path) -> Any:
    from NeuraxisLib.models import load_model

    model = load_model(path, "threshold")
    return model.header, {name: tensor.numpy() for name, tensor in model.weights().items()}


def _wrong_model(good: Any, found: Any) -> str:
    if found[0] != good[0]:
        return "another header"
    same = found[1].keys() == good[1].keys() and all(np.array_equal(found[1][name], good[1][name]) for name in good[1])
    return "" if same else "other weights"


def _write_result(folder: Path) -> Path:
    from NeuraxisLib.labels import Label, LabelTable
    from NeuraxisLib.result import Curve, CurvePlot, Landmark, Measurement, Result, ScalarMap, Table
    from NeuraxisLib.result_folder import write_result

    source = scan()
    result = Result(
        task="hemorrhage",
        source=source,
        labels=source.like((source.array > 0).astype(np.uint8)),
        maps={"entropy": ScalarMap(source.like(source.array.astype(np.float32), "bit"), "Entropy", (0.0, 1.0))},
        measurements=[Measurement("Total volume", 3.5, "mL", (3.0, 4.0))],
        tables={"bleeds": Table("Bleeds", (("Volume", "mL"),), ((3.5,),))},
        curves={"artery": CurvePlot("Curve", curves=(Curve("Artery", (0.0, 1.0), (2.0, 3.0)),))},
        points=[Landmark("Artery", (1.0, 2.0, 3.0), 0.9)],
        key_slices=[2],
        warnings=["A warning."],
        provenance={"model": "m"},
    )
    table = LabelTable((Label(1, "Blood", (200, 0, 0)),))
    write_result(result, folder / "out", table, report=False)
    return folder / "out" / "result.json"


def _read_result(path: Path) -> Any:
    from NeuraxisLib.result_folder import read_result

    return read_result(path.parent)


def _write_labels(folder: Path) -> Path:
    source = ROOT / "HemorrhageSeg" / "HemorrhageSegLib" / "Resources" / "labels.csv"
    (folder / "labels.csv").write_bytes(source.read_bytes())
    return folder / "labels.csv"


def _read_labels(path: Path) -> Any:
    from NeuraxisLib.labels import LabelTable

    return LabelTable.read(path)


def _write_exchange(folder: Path) -> Path:
    from NeuraxisLib.exchange import write_exchange

    return write_exchange(scan(), folder / "scan.exchange.nrrd")


def _read_exchange(path: Path) -> Any:
    from NeuraxisLib.run import read_input

    return read_input(path)


def _write_request(folder: Path) -> Path:
    request = {
        "request": "run", "id": 1, "task": "hemorrhage", "inputs": {"ct": "none.nrrd"}, "model": "", "options": {},
        "device": "cpu", "output": str(folder / "out"), "series": None,
    }  # fmt: skip
    (folder / "request.json").write_text(json.dumps(request))
    return folder / "request.json"


def _read_request(path: Path) -> list[dict]:
    """What a worker answers to the mutant and to a ping after it, all within this process."""
    from NeuraxisLib.worker import Channel, Worker

    class Quiet(Worker):
        def _report_memory(self) -> None:
            """Would be one more thread for every mutant."""

    events, left = io.BytesIO(), []
    lines = path.read_bytes().replace(b"\n", b" ") + b'\n{"request": "ping"}\n{"request": "quit"}\n'
    Quiet(Channel(events), io.BytesIO(lines), lambda: left.append(1)).serve()
    return [json.loads(event) for event in events.getvalue().splitlines()]


def _wrong_request(good: list[dict], found: list[dict]) -> str:
    kinds = [event["event"] for event in found]
    ends = [event for event in found if event["event"] == "failed"]
    if "pong" not in kinds:
        return "no answer to the next request"
    told = ends or [event for event in found if event["event"] == "log"]
    texts = [event["message"] for event in told]
    return "" if all(text.endswith(".") and "\n" not in text for text in texts) else "no sentence"


FILES: dict[str, Subject] = {
    "nifti": Subject(_image("nii"), read_volume, _bounded_image, 352),
    "nifti-packed": Subject(_image("nii.gz"), read_volume, _same_image, 1200),
    "nrrd": Subject(_image("nrrd"), read_volume, _bounded_image, 420),
    "nrrd-packed": Subject(_image("nrrd", True), read_volume, _bounded_image, 500),
    "metaimage": Subject(_image("mha"), read_volume, _bounded_image, 400),
    "dicom-explicit": Subject(_dicom(ExplicitVRLittleEndian), _read_dicom, _wrong_dicom, 1000),
    "dicom-implicit": Subject(_dicom(ImplicitVRLittleEndian), _read_dicom, _wrong_dicom, 1000),
    "dicom-big-endian": Subject(_dicom(ExplicitVRBigEndian), _read_dicom, _wrong_dicom, 1000),
    "dicom-deflated": Subject(_dicom(DeflatedExplicitVRLittleEndian), _read_dicom, _wrong_dicom, 1000),
    "dicom-rle": Subject(_dicom(RLELossless), _read_dicom, _wrong_dicom, 1600),
    "dicom-jpeg": Subject(_dicom("JPEG"), _read_dicom, _wrong_dicom, 1600),
    "dicom-jpeg-ls": Subject(_dicom(JPEGLSLossless), _read_dicom, _wrong_dicom, 1600),
    "dicom-jpeg-2000": Subject(_dicom("JPEG2000"), _read_dicom, _wrong_dicom, 1600),
    "model": Subject(_write_model, _read_model, _wrong_model, 1500),
    "result": Subject(_write_result, _read_result, damage=mutant_json),
    "labels": Subject(_write_labels, _read_labels),
    "exchange": Subject(_write_exchange, _read_exchange, _bounded_image, 700),
    "requests": Subject(_write_request, _read_request, _wrong_request, damage=mutant_json),
}
