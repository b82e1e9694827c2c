"""The result folder: what is in it, Slicer's reading of it, and that it is whole or not there."""

from __future__ import annotations

import csv
import errno
import json
import math
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from NeuraxisLib import result_folder
from NeuraxisLib.errors import CancelledError, InputError, OutputError
from NeuraxisLib.files import read_volume
from NeuraxisLib.labels import Label, LabelTable
from NeuraxisLib.result import Measurement, Result, ScalarMap, Table
from NeuraxisLib.result_folder import read_result, write, write_result
from NeuraxisLib.volume import Volume

HEMORRHAGE = Path(__file__).resolve().parents[2] / "HemorrhageSeg" / "HemorrhageSegLib" / "Resources" / "labels.csv"
TABLE = LabelTable.read(HEMORRHAGE)
FILES = {
    "result.json", "labels.seg.nrrd", "uncertainty.nrrd", "components.csv", "measurements.csv", "report.html",
}  # fmt: skip


def axial(tilt_degrees: float = 0.0, shape=(8, 24, 30)) -> Volume:
    angle = math.radians(tilt_degrees)
    matrix = np.eye(4)
    matrix[:3, 0] = (-0.5, 0, 0)
    matrix[:3, 1] = (0, -0.5 * math.cos(angle), -0.5 * math.sin(angle))
    matrix[:3, 2] = (0, 0, 5)
    matrix[:3, 3] = (7.5, 6.0, -20.0)
    return Volume(np.full(shape, 30, np.int16), matrix, unit="HU", meta={"modality": "CT"})


def unequal() -> Volume:
    z = np.array([0.0, 4.0, 8.0, 12.0, 19.0, 26.0, 33.0, 40.0])
    origins = np.column_stack([np.full(8, 7.5), np.full(8, 6.0), z])
    matrix = axial().ijk_to_ras.copy()
    matrix[:3, 2:] = np.column_stack([[0, 0, 40 / 7], origins[0]])
    return replace(axial(), ijk_to_ras=matrix, slice_origins_ras=origins)


def make_result(source: Volume | None = None, marked: bool = True) -> Result:
    source = source or axial()
    labels = np.zeros(source.array.shape, np.uint8)
    if marked:
        labels[2:5, 6:12, 10:20] = 1
        labels[4, 6:12, 10:12] = 0
    rng = np.random.default_rng(1)
    entropy = rng.random(source.array.shape).astype(np.float32)
    return Result(
        task="hemorrhage",
        source=source,
        labels=source.like(labels),
        maps={"uncertainty": ScalarMap(source.like(entropy, "bit"), "Uncertainty (entropy)", (0.0, 1.0))},
        measurements=[
            Measurement("Total volume", 1.25, "mL", (0.5, 2.5), note="how"),
            Measurement("Largest diameter", None, "mm", segment="Hemorrhage"),
        ],
        tables={"components": Table("Components", (("Component", ""), ("Volume", "mL")), ((1, 1.25), (2, None)))},
        key_slices=[3, 2],
        warnings=["Beware."],
        provenance={"model": {"sha256": "00"}, "device": "cpu", "seconds": np.float32(1.5)},
    )


def entries(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# -- content ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", [axial(), axial(20.0)], ids=["upright", "tilted"])
def test_a_result_comes_back_as_it_was(tmp_path, source):
    result = make_result(source)
    folder = write_result(result, tmp_path / "case", TABLE)
    assert entries(folder) == FILES
    again = read_result(folder)
    assert np.array_equal(again.labels.array, result.labels.array)
    assert np.array_equal(again.maps["uncertainty"].volume.array, result.maps["uncertainty"].volume.array)
    assert again.maps["uncertainty"].volume.unit == "bit"
    assert again.maps["uncertainty"].value_range == (0.0, 1.0)
    assert np.allclose(again.source.ijk_to_ras, source.ijk_to_ras, atol=1e-12)
    assert again.source.unit == "HU" and again.source.meta == {"modality": "CT"}
    assert again.measurements == result.measurements
    assert again.tables == result.tables
    assert (again.key_slices, again.warnings) == (result.key_slices, result.warnings)
    assert again.provenance == {"model": {"sha256": "00"}, "device": "cpu", "seconds": 1.5}


def test_files_carry_the_geometry_of_a_tilted_source(tmp_path):
    source = axial(20.0)
    folder = write_result(make_result(source), tmp_path / "case", TABLE)
    for name in ("labels.seg.nrrd", "uncertainty.nrrd"):
        assert np.allclose(read_volume(folder / name).ijk_to_ras, source.ijk_to_ras, atol=1e-9)


def test_unequal_gaps_are_written_on_equal_ones_and_taken_back(tmp_path):
    result = make_result(unequal())
    folder = write_result(result, tmp_path / "case", TABLE)
    document = json.loads((folder / "result.json").read_text())
    assert document["grid"]["equal_gaps"] is False and "unequal gaps" in document["grid"]["note"]
    assert read_volume(folder / "labels.seg.nrrd").array.shape == (11, 24, 30)  # 40 mm in steps of 4
    again = read_result(folder)
    assert np.array_equal(again.labels.array, result.labels.array)
    assert np.array_equal(again.labels.slice_origins_ras, result.source.slice_origins_ras)
    assert again.maps["uncertainty"].volume.array.shape == result.source.array.shape
    assert json.loads((write_result(make_result(), tmp_path / "b", TABLE) / "result.json").read_text())["grid"] == {
        "equal_gaps": True,
        "note": "",
    }


def test_reading_takes_the_callers_image(tmp_path):
    result = make_result()
    folder = write_result(result, tmp_path / "case", TABLE)
    assert read_result(folder, result.source).source is result.source
    with pytest.raises(InputError, match="another image"):
        read_result(folder, axial(shape=(8, 24, 31)))


def test_a_result_without_labels_maps_and_report(tmp_path):
    bare = Result("hemorrhage", axial(), measurements=[Measurement("Ratio", math.inf, "")])
    folder = write_result(bare, tmp_path / "case", TABLE, report=False)
    assert entries(folder) == {"result.json", "measurements.csv"}
    again = read_result(folder)
    assert again.labels is None and again.maps == {}
    assert again.measurements[0].value is None


def test_the_label_table_of_the_task_is_the_default(tmp_path, monkeypatch):
    task = SimpleNamespace(resources=HEMORRHAGE.parent)
    monkeypatch.setattr(result_folder, "get_task", lambda name: task if name == "hemorrhage" else None)
    folder = write_result(make_result(), tmp_path / "case")
    assert json.loads((folder / "result.json").read_text())["labels"]["segments"][0]["name"] == "Hemorrhage"


def test_json_is_strict_and_names_no_path(tmp_path):
    result = make_result()
    result.provenance["score"] = float("nan")
    folder = write_result(result, tmp_path / "case", TABLE)

    def refuse(constant):
        raise AssertionError(constant)

    document = json.loads((folder / "result.json").read_text(), parse_constant=refuse)
    assert document["schema"] == "neuraxis-result" and document["schema_version"] == 1
    assert document["provenance"]["score"] is None
    assert "research use only" in document["research_use_notice"]
    for path in folder.iterdir():
        assert str(tmp_path).encode() not in path.read_bytes()


def test_csv_cells_cannot_become_formulas(tmp_path):
    result = make_result()
    words = ("=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "plain", 'with "quotes", commas', -1.5, None, True)
    result.tables["components"] = Table("t", (("=head", "mL"),), tuple((word,) for word in words))
    folder = write_result(result, tmp_path / "case", TABLE)
    with open(folder / "components.csv", newline="") as file:
        rows = [row[0] if row else "" for row in csv.reader(file)]
    assert rows[:6] == ["'=head [mL]", "'=1+1", "'+1", "'-1", "'@SUM(A1)", "'\t=1"]
    assert rows[6:] == ["plain", 'with "quotes", commas', "-1.5", "", "True"]


def test_measurements_csv(tmp_path):
    folder = write_result(make_result(), tmp_path / "case", TABLE)
    with open(folder / "measurements.csv", newline="") as file:
        first, second = csv.DictReader(file)
    assert (first["value"], first["low"], first["high"], first["unit"]) == ("1.25", "0.5", "2.5", "mL")
    assert (second["value"], second["low"], second["segment"]) == ("", "", "Hemorrhage")


@pytest.mark.parametrize("name", ["../up", "a/b", "", "measurements", "x.y"])
def test_names_that_are_no_file_stems_are_refused(tmp_path, name):
    result = make_result()
    result.tables = {name: Table("t", (), ())}
    with pytest.raises(ValueError, match="name of a file"):
        write_result(result, tmp_path / "case", TABLE)
    assert entries(tmp_path) == set()


def test_a_value_without_a_label_is_refused(tmp_path):
    result = make_result()
    result.labels.array[0, 0, 0] = 9
    with pytest.raises(ValueError, match=r"\[9\]"):
        write_result(result, tmp_path / "case", TABLE)
    assert entries(tmp_path) == set()


# -- Slicer -----------------------------------------------------------------------------------------------------


def read_in_slicer(path: Path):
    """(scene, segmentation node) of a .seg.nrrd read by Slicer's own storage node; the scene keeps it alive."""
    slicer = pytest.importorskip("slicer_core", reason="slicer-core is not installed")
    scene, node, storage = (
        slicer.vtkMRMLScene(),
        slicer.vtkMRMLSegmentationNode(),
        slicer.vtkMRMLSegmentationStorageNode(),
    )
    scene.AddNode(node)
    scene.AddNode(storage)
    storage.SetFileName(str(path))
    assert storage.ReadData(node)
    return scene, node


def slicer_labelmap(node, segment_id: str):
    """(array over the segment's extent, extent (i, i, j, j, k, k), IJK-to-RAS) of a segment."""
    import slicer_core
    from vtkmodules.util.numpy_support import vtk_to_numpy
    from vtkmodules.vtkCommonMath import vtkMatrix4x4

    image, matrix = slicer_core.vtkOrientedImageData(), vtkMatrix4x4()
    assert node.GetBinaryLabelmapRepresentation(segment_id, image)
    image.GetImageToWorldMatrix(matrix)
    extent = image.GetExtent()
    scalars = image.GetPointData().GetScalars()
    shape = tuple(extent[2 * axis + 1] - extent[2 * axis] + 1 for axis in (2, 1, 0))
    array = np.zeros(shape) if scalars is None else vtk_to_numpy(scalars).reshape(shape)
    return array, extent, np.array([[matrix.GetElement(r, c) for c in range(4)] for r in range(4)])


@pytest.mark.parametrize("source", [axial(), axial(20.0)], ids=["upright", "tilted"])
def test_slicer_reads_the_segmentation(tmp_path, source):
    result = make_result(source)
    folder = write_result(result, tmp_path / "case", TABLE, report=False)
    _scene, node = read_in_slicer(folder / "labels.seg.nrrd")
    assert node.GetSegmentation().GetNumberOfSegments() == 1
    segment = node.GetSegmentation().GetNthSegment(0)
    assert segment.GetName() == "Hemorrhage"
    assert segment.GetLabelValue() == 1
    assert segment.GetColor() == pytest.approx((188 / 255, 65 / 255, 28 / 255), abs=1e-5)
    assert segment.GetTerminology() == TABLE[1].terminology
    array, (i0, i1, j0, j1, k0, k1), matrix = slicer_labelmap(node, "Segment_1")
    assert np.allclose(matrix, source.ijk_to_ras, atol=1e-6)
    placed = np.zeros(source.array.shape)
    placed[k0 : k1 + 1, j0 : j1 + 1, i0 : i1 + 1] = array
    assert np.array_equal(placed == 1, result.labels.array == 1)


def test_slicer_reads_an_empty_segment_and_several_labels(tmp_path):
    table = LabelTable(tuple(Label(value, name, (value, 2, 3)) for value, name in ((1, "None here"), (5, "Fünf"))))
    result = make_result(marked=False)
    result.labels.array[3, 4:6, 7] = 5
    folder = write_result(result, tmp_path / "case", table, report=False)
    _scene, node = read_in_slicer(folder / "labels.seg.nrrd")
    names = [node.GetSegmentation().GetNthSegment(n).GetName() for n in range(2)]
    assert names == ["None here", "Fünf"]
    array, extent, _ = slicer_labelmap(node, "Segment_5")
    assert array.sum() == 2 and extent[4:] == (3, 3)
    import slicer_core

    empty = slicer_core.vtkOrientedImageData()
    node.GetBinaryLabelmapRepresentation("Segment_1", empty)
    assert empty.GetNumberOfPoints() == 0 or (slicer_labelmap(node, "Segment_1")[0] == 0).all()


# -- whole or not at all ----------------------------------------------------------------------------------------


def test_an_earlier_result_is_replaced_with_all_its_files(tmp_path):
    folder = write_result(make_result(), tmp_path / "case", TABLE)
    second = make_result()
    second.maps, second.warnings = {}, ["Second."]
    write_result(second, folder, TABLE)
    assert entries(folder) == FILES - {"uncertainty.nrrd"}
    assert read_result(folder).warnings == ["Second."]
    assert entries(tmp_path) == {"case"}


def test_an_empty_folder_and_missing_parents_are_fine(tmp_path):
    (tmp_path / "empty").mkdir()
    write_result(make_result(), tmp_path / "empty", TABLE, report=False)
    write_result(make_result(), tmp_path / "a" / "b" / "case", TABLE, report=False)
    assert (tmp_path / "a" / "b" / "case" / "result.json").is_file()


def test_other_peoples_folders_and_files_are_left_alone(tmp_path):
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "chapter.txt").write_text("dear")
    with pytest.raises(OutputError, match=r"'thesis' holds something else"):
        write_result(make_result(), other, TABLE)
    with pytest.raises(OutputError, match="is a file"):
        write_result(make_result(), other / "chapter.txt", TABLE)
    assert entries(other) == {"chapter.txt"}
    assert (other / "chapter.txt").read_text() == "dear"


def test_a_folder_below_a_file_is_an_output_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        write_result(make_result(), tmp_path / "file" / "case", TABLE)
    assert entries(tmp_path) == {"file"}


@pytest.mark.skipif(os.name != "posix", reason="file size limits are a Unix thing")
def test_a_disk_that_takes_no_more_leaves_the_earlier_result(tmp_path):
    import resource
    import signal

    folder = write_result(make_result(), tmp_path / "case", TABLE)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    old_handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
        with pytest.raises(OutputError, match="'case' could not be written"):
            write_result(make_result(), folder, TABLE)
        with pytest.raises(OutputError):
            write_result(make_result(), tmp_path / "new" / "case", TABLE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, old_handler)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert entries(tmp_path) == {"case"}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_disk_errors_become_one_sentence(tmp_path, monkeypatch, code):
    def fail(*args, **kwargs):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(result_folder, "write_nrrd", fail)
    with pytest.raises(OutputError) as error:
        write_result(make_result(), tmp_path / "deep" / "case", TABLE)
    assert str(error.value).endswith(".") and str(tmp_path) not in str(error.value)
    assert entries(tmp_path) == set()


def test_a_failed_move_brings_the_earlier_result_back(tmp_path, monkeypatch):
    folder = write_result(make_result(), tmp_path / "case", TABLE)
    rename = Path.rename

    def fail_once(self, target):
        if self.name.endswith(".partial") and ".old." not in self.name:
            raise OSError(errno.EACCES, "in use")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_once)
    second = make_result()
    second.warnings = ["Second."]
    with pytest.raises(OutputError):
        write_result(second, folder, TABLE)
    assert read_result(folder).warnings == ["Beware."]
    assert entries(tmp_path) == {"case"}


def test_cancel_at_the_last_moment_leaves_everything_as_it_was(tmp_path):
    folder = write_result(make_result(), tmp_path / "case", TABLE)

    def cancel():
        raise CancelledError()

    second = make_result()
    second.warnings = ["Second."]
    with pytest.raises(CancelledError):
        write_result(second, folder, TABLE, before_replace=cancel)
    with pytest.raises(CancelledError):
        write_result(second, tmp_path / "new" / "case", TABLE, before_replace=cancel)
    assert read_result(folder).warnings == ["Beware."]
    assert entries(tmp_path) == {"case"}


def test_the_inner_write_refuses_a_folder_that_exists(tmp_path):
    (tmp_path / "case").mkdir()
    with pytest.raises(OutputError):
        write(make_result(), tmp_path / "case", TABLE)


# -- reading what is not a result -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "not a result folder"),
        ("{", "damaged"),
        ("[]", "does not hold a result"),
        ('{"schema": "other"}', "does not hold a result"),
        ('{"schema": "neuraxis-result", "schema_version": 99}', "newer"),
        ('{"schema": "neuraxis-result", "schema_version": 1}', "damaged"),
    ],
)
def test_faulty_folders_are_refused_in_one_sentence(tmp_path, text, says):
    folder = tmp_path / "case"
    folder.mkdir()
    if text is not None:
        (folder / "result.json").write_text(text)
    with pytest.raises(InputError, match=says) as error:
        read_result(folder)
    assert str(tmp_path) not in str(error.value)


def test_a_missing_map_file_is_an_input_error(tmp_path):
    folder = write_result(make_result(), tmp_path / "case", TABLE)
    (folder / "uncertainty.nrrd").unlink()
    with pytest.raises(InputError, match=r"uncertainty\.nrrd"):
        read_result(folder)
