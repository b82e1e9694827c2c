"""A result as DICOM: voxels at the patient positions of their source images, whoever reads them; all or nothing."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_results import PROVENANCE, VOXELS, discs_folder, marked_voxels, result_on, stroke_folder
from typer.testing import CliRunner

from NeuraxisLib import dicom_export
from NeuraxisLib.block_means import block_means, is_same_image
from NeuraxisLib.dicom_export import export_dicom
from NeuraxisLib.errors import CancelledError, DependencyError, GeometryError, InputError, OutputError
from NeuraxisLib.files import read_volume, write_volume
from NeuraxisLib.labels import LabelTable
from NeuraxisLib.result_folder import write_result
from NeuraxisLib.task import Progress, get_task
from Testing.dicom_series import CANARY, change, enhanced, one_sentence, save, series

NAMES = {1: "Penumbra", 2: "Core"}
IDENTITY = ("PatientName", "PatientID", "PatientBirthDate", "StudyInstanceUID")
HEIGHTS = np.arange(-30.0, 31.0, 10.0)
#: Pixels a side and their size: small, so that the tests are quick.
SIDE, PIXEL_MM = 40, 5.0


def turned(x: float, y: float, z: float) -> np.ndarray:
    """A rotation by degrees about x, then y, then z."""
    a, b, c = np.radians([x, y, z])
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    about_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


#: Rows run down (-z) and columns to the back (+y); slices to the left (+x), as of a sagittal spine.
SAGITTAL = np.array([[0.0, 0, 1], [1, 0, 0], [0, -1, 0]])
#: Series on which the same voxels are marked.
SOURCES = {
    "axial": lambda folder: save(coarse(HEIGHTS), folder),
    "sagittal": lambda folder: save(coarse(HEIGHTS, rotation=SAGITTAL), folder),
    "oblique": lambda folder: save(coarse(HEIGHTS, rotation=turned(25, 15, 10)), folder),
    "tilted": lambda folder: save(coarse(HEIGHTS, tilt_deg=20.0), folder),
    "uneven": lambda folder: save(coarse([-30, -20, -10, 0, 20, 40, 60], tilt_deg=12.0), folder),
    "multi-frame": lambda folder: enhanced(folder, HEIGHTS),
    "numbered downward": lambda folder: save(coarse(HEIGHTS[::-1]), folder),
}


def coarse(*arguments, **options) -> list[pydicom.Dataset]:
    """A series of the phantom with few pixels."""
    return series(*arguments, **{"matrix": SIDE, "pixel_mm": PIXEL_MM, **options})


def expected(folder: Path) -> list[tuple]:
    """Where the marked voxels must lie by the headers of the source files: (segment, LPS mm, UID, frame)."""
    planes = []
    for path in folder.glob("*.dcm"):
        one = pydicom.dcmread(path, stop_before_pixels=True)
        if "NumberOfFrames" in one:
            shared = one.SharedFunctionalGroupsSequence[0]
            orientation = shared.PlaneOrientationSequence[0].ImageOrientationPatient
            groups = enumerate(one.PerFrameFunctionalGroupsSequence, start=1)
            planes += [(g.PlanePositionSequence[0].ImagePositionPatient, orientation, one.SOPInstanceUID, number)
                       for number, g in groups]  # fmt: skip
            one.PixelSpacing = shared.PixelMeasuresSequence[0].PixelSpacing
        else:
            planes.append((one.ImagePositionPatient, one.ImageOrientationPatient, one.SOPInstanceUID, None))
    orientation = np.array(planes[0][1], float)
    normal = np.cross(orientation[:3], orientation[3:])
    planes.sort(key=lambda plane: float(np.array(plane[0], float) @ normal))
    found = []
    for (k, row, column), value in VOXELS.items():
        corner, _, uid, frame = planes[k]
        within = (column * orientation[:3] + row * orientation[3:]) * float(one.PixelSpacing[0])
        place = np.array(corner, float) + within
        found.append((NAMES[value], tuple(np.round(place, 3).tolist()), str(uid), frame))
    return sorted(found)


def close(found: list, wanted: list) -> bool:
    """Whether voxels agree, positions to 0.002 mm."""
    same = [(a.segment, a.sop_instance_uid, a.frame) == (b[0], b[2], b[3]) for a, b in zip(found, wanted)]
    apart = [np.abs(np.subtract(a.position_lps, b[1])).max() for a, b in zip(found, wanted)]
    return len(found) == len(wanted) and all(same) and max(apart) < 2e-3


@pytest.mark.parametrize("kind", SOURCES)
def test_voxels_lie_where_they_were_marked(tmp_path, kind):
    source = SOURCES[kind](tmp_path / "scan")
    result = stroke_folder(tmp_path / "result", source)
    exported = export_dicom(result, source, tmp_path / "dicom", ["seg"])
    assert [path.name for path in exported.files] == ["segmentation.dcm"]
    assert close(marked_voxels(exported.files[0]), expected(source))


def test_positions_known_by_hand(tmp_path):
    source = SOURCES["axial"](tmp_path / "scan")
    export_dicom(stroke_folder(tmp_path / "result", source), source, tmp_path / "dicom", ["seg"])
    positions = {marked.position_lps for marked in marked_voxels(tmp_path / "dicom" / "segmentation.dcm")}
    # the first pixel lies 19.5 pixels of 5 mm right and in front of the middle, slices every 10 mm from -30
    assert positions == {(2.5, -47.5, -20), (7.5, -47.5, -20), (67.5, 87.5, -10), (-97.5, 97.5, 10), (97.5, -72.5, 10)}


@pytest.mark.parametrize("kind", ["oblique", "tilted", "multi-frame"])
def test_highdicom_reads_the_same_mask(tmp_path, kind):
    import highdicom as hd

    source = SOURCES[kind](tmp_path / "scan")
    export_dicom(stroke_folder(tmp_path / "result", source), source, tmp_path / "dicom", ["seg"])
    read = hd.seg.segread(tmp_path / "dicom" / "segmentation.dcm")
    images = [pydicom.dcmread(path, stop_before_pixels=True) for path in sorted(source.glob("*.dcm"))]
    if kind == "multi-frame":
        frames = list(range(1, len(HEIGHTS) + 1))
        mask = read.get_pixels_by_source_frame(images[0].SOPInstanceUID, frames, combine_segments=True,
                                               assert_missing_frames_are_empty=True)  # fmt: skip
    else:
        uids = [image.SOPInstanceUID for image in images]
        mask = read.get_pixels_by_source_instance(uids, combine_segments=True)
    assert {tuple(map(int, place)): int(mask[tuple(place)]) for place in np.argwhere(mask)} == VOXELS


def test_what_a_segment_says_of_itself(tmp_path):
    source = SOURCES["tilted"](tmp_path / "scan")
    export_dicom(stroke_folder(tmp_path / "result", source), source, tmp_path / "dicom", ["seg"])
    dataset = pydicom.dcmread(tmp_path / "dicom" / "segmentation.dcm")
    image = pydicom.dcmread(source / "0001.dcm")
    assert [dataset.get(word) for word in IDENTITY] == [image.get(word) for word in IDENTITY]
    assert dataset.SegmentationType == "BINARY" and dataset.Modality == "SEG"
    assert dataset.SeriesInstanceUID != image.SeriesInstanceUID
    assert dataset.ContentDescription.endswith("research use only") and len(dataset.ContentDescription) <= 64
    assert dataset.SeriesDescription.endswith("research use only")
    table = LabelTable.read(get_task("stroke").resources / "labels.csv")
    assert [item.SegmentLabel for item in dataset.SegmentSequence] == ["Penumbra", "Core"]
    for item, label in zip(dataset.SegmentSequence, table):
        code = item.SegmentedPropertyTypeCodeSequence[0]
        assert (code.CodingSchemeDesignator, code.CodeValue) == (label.type.scheme, label.type.value)
        assert item.SegmentedPropertyCategoryCodeSequence[0].CodeValue == label.category.value
        assert item.AnatomicRegionSequence[0].CodeValue == label.region.value
        algorithm = item.SegmentationAlgorithmIdentificationSequence[0]
        assert algorithm.AlgorithmName == "Starter of the tests, research use only"
        assert algorithm.AlgorithmVersion == "0.1.0, model abababababab"
        assert f"sha256={'ab' * 32}" in algorithm.AlgorithmParameters
        assert item.SegmentAlgorithmType == "AUTOMATIC" and "research use only" in item.SegmentAlgorithmName
    referenced = dataset.ReferencedSeriesSequence[0]
    assert referenced.SeriesInstanceUID == image.SeriesInstanceUID
    assert len(referenced.ReferencedInstanceSequence) == len(HEIGHTS)


def test_colours_are_those_of_the_label_table(tmp_path):
    import highdicom as hd

    source = SOURCES["axial"](tmp_path / "scan")
    export_dicom(stroke_folder(tmp_path / "result", source), source, tmp_path / "dicom", ["seg"])
    read = hd.seg.segread(tmp_path / "dicom" / "segmentation.dcm")
    for label, item in zip(LabelTable.read(get_task("stroke").resources / "labels.csv"), read.SegmentSequence):
        shown = hd.color.CIELabColor.from_dicom_value(tuple(item.RecommendedDisplayCIELabValue)).to_rgb()
        assert np.abs(np.subtract(shown, label.color)).max() <= 2


def test_all_parts_belong_together(tmp_path):
    source = SOURCES["oblique"](tmp_path / "scan")
    exported = export_dicom(stroke_folder(tmp_path / "result", source), source, tmp_path / "dicom")
    names = [path.relative_to(tmp_path / "dicom").as_posix() for path in exported.files]
    assert names == ["segmentation.dcm", "measurements.dcm", "maps/tmax.dcm", "report.dcm"]
    assert exported.left_out == [] and all(path.is_file() for path in exported.files)
    read = [pydicom.dcmread(path) for path in exported.files]
    image = pydicom.dcmread(source / "0001.dcm")
    for dataset in read:
        assert [dataset.get(word) for word in IDENTITY] == [image.get(word) for word in IDENTITY]
        assert dataset.SeriesDescription.endswith("research use only")
        assert dataset.SOPInstanceUID == dataset.file_meta.MediaStorageSOPInstanceUID
        assert dataset.Manufacturer == "Neuraxis"
    assert len({dataset.SeriesInstanceUID for dataset in read}) == len(read)
    assert len({dataset.SeriesNumber for dataset in read}) == len(read)
    frames = {dataset.FrameOfReferenceUID for dataset in read if "FrameOfReferenceUID" in dataset}
    regions = {element.value for element in read[1].iterall() if element.keyword == "ReferencedFrameOfReferenceUID"}
    assert len(frames) == 1 and regions == frames


def test_a_frame_of_reference_of_the_source_is_kept(tmp_path):
    source = change(SOURCES["axial"](tmp_path / "scan"), FrameOfReferenceUID="1.2.3.4.5", PatientSex="F")
    exported = export_dicom(stroke_folder(tmp_path / "result", source), source, tmp_path / "dicom")
    read = [pydicom.dcmread(path) for path in exported.files]
    assert {dataset.get("FrameOfReferenceUID", "1.2.3.4.5") for dataset in read} == {"1.2.3.4.5"}
    assert {dataset.PatientSex for dataset in read} == {"F"}


def test_a_converted_file_finds_its_way_back(tmp_path):
    source = SOURCES["oblique"](tmp_path / "scan")
    scan = read_volume(source)
    flipped = scan.array[::-1, ::-1]  # a converter turned slices and rows round
    matrix = scan.ijk_to_ras.copy()
    matrix[:3, 3] += (len(scan.array) - 1) * matrix[:3, 2] + (SIDE - 1) * matrix[:3, 1]
    matrix[:3, 1:3] *= -1
    write_volume(replace(scan, array=flipped, ijk_to_ras=matrix, unit=""), tmp_path / "scan.nii.gz")
    voxels = {(len(scan.array) - 1 - k, SIDE - 1 - row, column): value for (k, row, column), value in VOXELS.items()}
    result = write_result(result_on(read_volume(tmp_path / "scan.nii.gz"), voxels=voxels), tmp_path / "result")
    export_dicom(result, source, tmp_path / "dicom", ["seg"])
    assert close(marked_voxels(tmp_path / "dicom" / "segmentation.dcm"), expected(source))


def test_a_series_stored_along_another_axis_finds_its_way_back(tmp_path):
    source = SOURCES["axial"](tmp_path / "scan")
    scan = read_volume(source)
    matrix = scan.ijk_to_ras[:, [2, 0, 1, 3]]  # k became i, i became j, j became k
    moved = replace(scan, array=np.transpose(scan.array, (1, 2, 0)), ijk_to_ras=matrix, meta={})
    voxels = {(row, column, k): value for (k, row, column), value in VOXELS.items()}
    result = write_result(result_on(moved, voxels=voxels), tmp_path / "result")
    export_dicom(result, source, tmp_path / "dicom", ["seg"])
    assert close(marked_voxels(tmp_path / "dicom" / "segmentation.dcm"), expected(source))


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (dicom3tools) is not installed")
@pytest.mark.parametrize("kind", ["tilted", "multi-frame"])
def test_dciodvfy_finds_no_error(tmp_path, kind):
    source = change(SOURCES[kind](tmp_path / "scan"), StudyDate="20200102", StudyTime="101112", PatientSex="M")
    for path in export_dicom(stroke_folder(tmp_path / "result", source), source, tmp_path / "dicom").files:
        said = subprocess.run(["dciodvfy", path], capture_output=True, text=True, check=False)
        lines = (said.stdout + said.stderr).splitlines()
        assert [line for line in lines if line.startswith(("Error", "Abort"))] == [], path.name
        assert any(line.startswith(("Segm", "Compreh", "Param", "Encaps")) for line in lines)  # the IOD was recognised


# -- headers --------------------------------------------------------------------------------------------------

#: What careless devices write, and what the export makes of it (a text read back).
ODD = {
    "PatientSex": ("U", ""),
    "PatientBirthDate": ("1901", ""),
    "StudyDate": ("2020.01.02", "2020.01.02"),
    "StudyTime": ("10:11:12", "101112"),
    "SpecificCharacterSet": (["", "ISO 2022 IR 87"], "['ISO 2022 IR 6', 'ISO 2022 IR 87']"),
    "PatientName": ("Yamada^Tarou=山田^太郎", "Yamada^Tarou=山田^太郎"),
    "PatientID": (None, ""),
    "FrameOfReferenceUID": ("", None),
    "PatientAge": ("047Y", "047Y"),
}


def test_odd_headers_of_the_source(tmp_path):
    source = SOURCES["axial"](tmp_path / "scan")
    change(source, **{word: value for word, (value, _) in ODD.items() if word != "PatientName"})
    change(source, PatientName=ODD["PatientName"][0])
    exported = export_dicom(stroke_folder(tmp_path / "result", source), source, tmp_path / "dicom")
    frames = set()
    for path in exported.files:
        dataset = pydicom.dcmread(path)
        frames.add(dataset.get("FrameOfReferenceUID", ""))
        for word, (_, wanted) in ODD.items():
            if wanted is not None:
                assert str(dataset.get(word)) == wanted, (path.name, word)
    assert len(frames - {""}) == 1  # made up once for all


# -- faults ---------------------------------------------------------------------------------------------------


def test_another_series_is_refused(tmp_path):
    source = SOURCES["axial"](tmp_path / "scan")
    result = stroke_folder(tmp_path / "result", source)
    for name, made in {
        "moved": coarse(HEIGHTS + 3.0),
        "finer": coarse(HEIGHTS, pixel_mm=4.9),
        "tilted": coarse(HEIGHTS, tilt_deg=10.0),
        "shorter": coarse(HEIGHTS[:-1]),
    }.items():
        with pytest.raises(GeometryError) as error:
            export_dicom(result, save(made, tmp_path / name), tmp_path / "dicom")
        assert "has the slices of the result" in one_sentence(error)
    with pytest.raises(GeometryError) as error:
        export_dicom(result, save(coarse(HEIGHTS), tmp_path / "twin"), tmp_path / "dicom")
    assert "its UIDs differ" in one_sentence(error)
    assert not (tmp_path / "dicom").exists()


def test_the_right_series_is_found_among_others(tmp_path):
    folder = tmp_path / "study"
    source = SOURCES["axial"](folder / "a")
    save(coarse(HEIGHTS), folder / "b")
    save(coarse(HEIGHTS + 2), folder / "c")
    export_dicom(stroke_folder(tmp_path / "result", source), folder, tmp_path / "dicom", ["seg"])
    assert close(marked_voxels(tmp_path / "dicom" / "segmentation.dcm"), expected(source))


def test_a_result_without_a_key_knows_its_series_by_its_grey_values(tmp_path):
    """As results have it that were computed in Slicer, or from a converted file: the grid is not the patient."""
    source = SOURCES["axial"](tmp_path / "study" / "b")
    scan = read_volume(source)
    assert np.ptp(scan.array) > 0
    scaled = replace(scan, array=(2 * scan.array.astype(np.float32) + 100), meta={})
    result = write_result(result_on(scaled), tmp_path / "result")
    other = coarse(HEIGHTS)
    for one in other:
        pixels = one.pixel_array.copy()
        one.PixelData = np.ascontiguousarray(pixels[:, ::-1]).tobytes()
    stranger = save(other, tmp_path / "study" / "a")
    with pytest.raises(GeometryError, match="its grey values differ"):
        export_dicom(result, stranger, tmp_path / "dicom", ["seg"])
    export_dicom(result, tmp_path / "study", tmp_path / "dicom", ["seg"])
    assert close(marked_voxels(tmp_path / "dicom" / "segmentation.dcm"), expected(source))
    over_time = replace(result_on(scaled), provenance={**PROVENANCE, "acquisition": {"frames": 20}})
    export_dicom(write_result(over_time, tmp_path / "mean"), stranger, tmp_path / "of mean", ["seg"])  # no such image


def test_block_means_know_an_image():
    rng = np.random.default_rng(3)
    image = rng.normal(40, 10, (5, 8, 9)) + 60 * (np.arange(9) > 5)
    means = block_means(image)
    assert means[:4] == pytest.approx([image[0, :4, :4].mean(), image[0, :4, 4:].mean(), image[0, 4:, :4].mean(),
                                       image[0, 4:, 4:].mean()], rel=1e-4)  # fmt: skip
    assert len(means) == 20 and is_same_image(means, np.rint(2.5 * image - 1000))
    assert not is_same_image(means, image[:, :, ::-1]) and not is_same_image(means, image[::-1])
    assert not is_same_image(means, image[:4]) and not is_same_image(means, -image)
    assert block_means(np.zeros((5, 8, 9))) is None and block_means(image[None]) is None


def test_what_is_no_dicom_source(tmp_path):
    source = SOURCES["axial"](tmp_path / "scan")
    result = stroke_folder(tmp_path / "result", source)
    write_volume(replace(read_volume(source), unit=""), tmp_path / "scan.nii.gz")
    for place, words in (
        (tmp_path / "scan.nii.gz", "name the DICOM folder that it was converted from"),
        (tmp_path / "nowhere", "was not found"),
        (result, "holds no DICOM images"),
        (None, "name the DICOM folder of the source series"),
    ):
        with pytest.raises(InputError) as error:
            export_dicom(result, place, tmp_path / "dicom")
        assert words in one_sentence(error)


def test_nothing_outlined(tmp_path):
    source = SOURCES["axial"](tmp_path / "scan")
    result = write_result(result_on(read_volume(source), "hemorrhage", voxels={}), tmp_path / "result")
    with pytest.raises(InputError) as error:
        export_dicom(result, source, tmp_path / "dicom", ["seg"])
    assert "has no segments" in one_sentence(error)
    exported = export_dicom(result, source, tmp_path / "dicom")
    assert [path.name for path in exported.files] == ["measurements.dcm", "report.dcm"]
    assert len(exported.left_out) == 2 and "no segments" in exported.left_out[0] and "no maps" in exported.left_out[1]


def test_without_highdicom(tmp_path, monkeypatch):
    source = SOURCES["axial"](tmp_path / "scan")
    result = stroke_folder(tmp_path / "result", source)
    monkeypatch.setitem(__import__("sys").modules, "highdicom", None)
    with pytest.raises(DependencyError) as error:
        export_dicom(result, source, tmp_path / "dicom")
    assert "Python package highdicom" in one_sentence(error)


def test_all_or_nothing(tmp_path, monkeypatch):
    source = SOURCES["axial"](tmp_path / "scan")
    result, output = stroke_folder(tmp_path / "result", source), tmp_path / "out" / "dicom"

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(dicom_export, "make_report", full)
    with pytest.raises(OutputError) as error:
        export_dicom(result, source, output)
    assert "the disk is full" in one_sentence(error) and list(output.parent.iterdir()) == []
    monkeypatch.undo()
    stages: list[str] = []
    cancelling = Progress(lambda fraction, stage: stages.append(stage), lambda: "Writing the report" in stages)
    with pytest.raises(CancelledError):
        export_dicom(result, source, output, progress=cancelling)
    assert list(output.parent.iterdir()) == []
    output.mkdir()
    (output / "mine.txt").write_text("kept")
    with pytest.raises(OutputError) as error:
        export_dicom(result, source, output)
    assert "not an empty folder" in one_sentence(error) and [p.name for p in output.iterdir()] == ["mine.txt"]


# -- command line ---------------------------------------------------------------------------------------------


def test_command_line(tmp_path):
    from NeuraxisLib.cli import make_app

    source = SOURCES["axial"](tmp_path / "scan")
    result = discs_folder(tmp_path / "result", source)
    done = CliRunner().invoke(make_app(), ["dicom", str(result), str(source), str(tmp_path / "dicom"), "--json"])
    assert done.exit_code == 0, done.output
    record = json.loads(done.stdout)
    assert record["files"] == ["measurements.dcm", "report.dcm"] and len(record["left_out"]) == 2
    one = CliRunner().invoke(make_app(), ["dicom", str(result), str(source), str(tmp_path / "sr"), "--sr"])
    assert one.exit_code == 0 and "1 DICOM file in" in one.stdout and "search use only" in one.stdout
    assert [path.name for path in (tmp_path / "sr").iterdir()] == ["measurements.dcm"]
    none = CliRunner().invoke(make_app(), ["dicom", str(result), str(source), str(tmp_path / "seg"), "--seg"])
    assert none.exit_code == 3 and "has no segments" in none.stderr and CANARY not in none.output
    other = save(coarse(HEIGHTS + 3), tmp_path / "other")
    wrong = CliRunner().invoke(make_app(), ["dicom", str(result), str(other), str(tmp_path / "wrong")])
    assert wrong.exit_code == 4 and "has the slices of the result" in wrong.stderr
