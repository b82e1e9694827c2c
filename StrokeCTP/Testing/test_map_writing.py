"""Our own maps as DICOM and back: parametric maps exactly, pictures by their own bar; all or nothing on the disk."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pydicom
import pytest
from map_series import SLICES, TOPS, brain, values, volume
from test_map_set import LABELS, NAMES, write_our_result
from typer.testing import CliRunner

from NeuraxisLib.cli import make_app
from NeuraxisLib.errors import CancelledError, GeometryError, InputError, OutputError
from NeuraxisLib.files import read_volume
from NeuraxisLib.result import Result, ScalarMap
from NeuraxisLib.result_folder import write_result
from NeuraxisLib.task import Progress
from StrokeCTPLib.map_set import read_map_set
from StrokeCTPLib.map_writing import FORMATS, export_maps, write_maps
from Testing.dicom_series import CANARY, gantry_tilt, mixed_spacing, oblique_head

#: Maps of the quicker tests.
TWO = ("cbf", "tmax")
#: What a secondary capture has to have (DICOM PS3.3 A.8: types 1 and 2 of its modules that always apply).
REQUIRED = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate", "StudyTime",
    "ReferringPhysicianName", "StudyID", "AccessionNumber", "Modality", "SeriesInstanceUID", "SeriesNumber",
    "ConversionType", "InstanceNumber", "PatientOrientation", "SamplesPerPixel", "PhotometricInterpretation", "Rows",
    "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PlanarConfiguration", "PixelData",
    "SOPClassUID", "SOPInstanceUID",
)  # fmt: skip


def test_parametric_maps_of_a_result_come_back_exactly(tmp_path):
    paths = export_maps(write_our_result(tmp_path / "result"), tmp_path / "dicom")
    assert sorted(path.name for path in paths) == sorted(f"{name}.dcm" for name in NAMES)
    found = read_map_set(tmp_path / "dicom")
    assert sorted(found.maps) == sorted(NAMES) and not any("states no unit" in note for note in found.notes)
    for name in NAMES:
        assert np.array_equal(found.maps[name].array, values(name), equal_nan=True)
    study = {pydicom.dcmread(path).StudyInstanceUID for path in paths}
    assert len(study) == 1


@pytest.mark.parametrize("scale", ["jet", "usual"])
def test_pictures_of_a_result_come_back_by_their_bar(tmp_path, scale):
    paths = export_maps(write_our_result(tmp_path / "result"), tmp_path / "dicom", "rgb", scale=scale)
    assert len(paths) == 4 * len(NAMES)
    found = read_map_set(tmp_path / "dicom")  # the range is in the pictures
    assert sorted(found.maps) == sorted(NAMES)
    for name in NAMES:
        array, truth = found.maps[name].array, values(name)
        assert array.shape == truth.shape and np.array_equal(np.isfinite(array), brain())
        assert np.nanmax(np.abs(array - truth)) <= 0.0055 * TOPS[name]  # half a row of a bar of 96 rows
        assert found.confidence[name].array[brain()].min() > 0.9


@pytest.mark.parametrize("form", FORMATS)
def test_maps_by_several_methods_side_by_side(tmp_path, form):
    """The map that bears just its name is the one that is read; the others are written beside it."""
    shown = {name: replace(volume("cbf"), array=share * values("cbf")) for name, share in
             (("cbf_model", 0.7), ("cbf", 1.0), ("cbf_calibrated", 0.8))}  # fmt: skip
    maps = {name: ScalarMap(one, "Cerebral blood flow", (0, 100)) for name, one in shown.items()}
    maps["doubt"] = ScalarMap(volume("cbf").like(brain().astype(np.float32)), "Doubt", (0, 1))
    paths = write_maps(maps, tmp_path / "dicom", form)
    assert len(paths) == 4 * (1 if form == "parametric" else SLICES)
    found = read_map_set(tmp_path / "dicom")
    assert list(found.maps) == ["cbf"]
    assert np.nanmax(np.abs(found.maps["cbf"].array - values("cbf"))) <= (0 if form == "parametric" else 0.55)


def test_what_the_standard_requires_of_pictures(tmp_path):
    paths = export_maps(write_our_result(tmp_path / "result", ("cbf",)), tmp_path / "dicom", "rgb")
    for k, path in enumerate(paths):
        dataset = pydicom.dcmread(path)
        assert [word for word in REQUIRED if word not in dataset] == []
        assert dataset.SOPClassUID == pydicom.uid.SecondaryCaptureImageStorage and dataset.InstanceNumber == k + 1
        assert dataset.PhotometricInterpretation == "RGB" and dataset.BurnedInAnnotation == "YES"
        assert dataset.SeriesDescription == "CBF RGB 0-100 mL/100 g/min"
        assert list(dataset.PatientOrientation) == ["L", "P"]
        assert list(dataset.ImagePositionPatient) == [0, 0, 5 * k]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("made", [oblique_head, gantry_tilt, mixed_spacing])
def test_maps_of_any_series_join_its_study(tmp_path, made, form):
    scan = read_volume(made(tmp_path / "scan"))
    array = np.clip(scan.array.astype(np.float32) / 3, 0, 90)
    maps = {"cbf": ScalarMap(scan.like(array, "mL/100 g/min"), "Cerebral blood flow", (0, 100))}
    write_result(Result("stroke", scan, maps=maps), tmp_path / "result", LABELS, report=False)
    (path, *_) = export_maps(tmp_path / "result", tmp_path / "dicom", form, tmp_path / "scan")
    dataset, source = pydicom.dcmread(path), pydicom.dcmread(tmp_path / "scan" / "0001.dcm")
    assert dataset.StudyInstanceUID == source.StudyInstanceUID and dataset.PatientName == source.PatientName
    assert source.SOPInstanceUID in str(dataset)  # the lowest slice is referred to
    found = read_map_set(tmp_path / "dicom").grid
    assert np.allclose(found.origins_ras, scan.origins_ras, atol=1e-4)
    assert np.allclose(found.ijk_to_ras[:, :2], scan.ijk_to_ras[:, :2], atol=1e-6)
    if scan.is_uniform:
        assert np.nanmax(np.abs(found.array - array)) <= (0 if form == "parametric" else 0.3)


def test_without_a_source_no_patient_is_named(tmp_path):
    for form in FORMATS:
        (path, *_) = export_maps(write_our_result(tmp_path / form / "result", TWO), tmp_path / form / "dicom", form)
        dataset = pydicom.dcmread(path)
        assert dataset.PatientName == dataset.PatientID == "" and CANARY not in str(dataset)


# -- all or nothing -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMATS)
def test_cancel_and_a_full_disk_leave_nothing(tmp_path, monkeypatch, form):
    result = write_our_result(tmp_path / "result", TWO)
    asked = iter([False] * 2)
    with pytest.raises(CancelledError):
        export_maps(result, tmp_path / "dicom", form, progress=Progress(cancelled=lambda: next(asked, True)))
    saved, calls = pydicom.dataset.Dataset.save_as, []

    def full(dataset, *args, **options):
        calls.append(1)
        if len(calls) > 1:
            raise OSError(28, "No space left on device")
        return saved(dataset, *args, **options)

    monkeypatch.setattr(pydicom.dataset.Dataset, "save_as", full)
    with pytest.raises(OutputError, match="the disk is full"):
        export_maps(result, tmp_path / "dicom", form)
    assert [path.name for path in tmp_path.iterdir()] == ["result"]


def test_what_is_refused(tmp_path):
    result = write_our_result(tmp_path / "result", TWO)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="'full' is there and not an empty folder"):
        export_maps(result, tmp_path / "full")
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine.txt"]
    with pytest.raises(InputError, match="no format 'png'"):
        export_maps(result, tmp_path / "dicom", "png")
    with pytest.raises(InputError, match="no colour scale 'viridis'"):
        export_maps(result, tmp_path / "dicom", "rgb", scale="viridis")
    with pytest.raises(GeometryError, match="choose the DICOM folder that the result was made from"):
        export_maps(result, tmp_path / "dicom", "rgb", oblique_head(tmp_path / "scan"))
    with pytest.raises(InputError, match="not a result folder"):
        export_maps(tmp_path / "full", tmp_path / "dicom")
    assert not (tmp_path / "dicom").exists()


def test_the_command_line(tmp_path):
    result = write_our_result(tmp_path / "result", TWO)
    done = CliRunner().invoke(make_app(), ["maps", str(result), str(tmp_path / "dicom"), "--format", "rgb"])
    assert done.exit_code == 0 and f"{4 * len(TWO)} DICOM files in" in done.stdout
    again = CliRunner().invoke(make_app(), ["maps", str(result), str(tmp_path / "dicom")])
    assert again.exit_code == 7 and "not an empty folder" in again.stderr
