"""The CSV layout and BIDS: what a table may say, masks and their values, entities, and every fault by name."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from dicom_series import lesion_ml, one_sentence, save, series
from test_layouts_hemseg import head, spot

from NeuraxisLib.errors import InputError
from NeuraxisLib.files import write_volume
from NeuraxisLib.volume import Volume
from Training.layouts import get_layout
from Training.layouts.base import LayoutOptions
from Training.layouts.grids import labels_of
from Training.store import BLEEDING, CLEAN, IGNORED, UNKNOWN

TABLE, BIDS = get_layout("csv"), get_layout("bids")


def write_table(path: Path, rows: list[dict], delimiter: str = ",") -> Path:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with open(path, "w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns, delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.mark.parametrize(("ending", "delimiter"), [(".nii.gz", ","), (".nrrd", ";"), (".mha", "\t")])
def test_a_line_becomes_a_case(tmp_path, ending, delimiter):
    (tmp_path / "scans").mkdir()
    for name, volume in (("image", head(3)), ("truth", spot(head())), ("region", spot(head()))):
        write_volume(volume, tmp_path / "scans" / f"{name}{ending}")
    row = {"ID": "x", "image": f"scans/image{ending}", "truth": f"scans\\truth{ending}",
           "region": f"scans/region{ending}", "patient": "Jürgen", "group": "IPH", "split": "test"}  # fmt: skip
    found = TABLE.find(write_table(tmp_path / "cases.csv", [row], delimiter), LayoutOptions())
    assert found.findings == []
    case = TABLE.read(found.sources[0], LayoutOptions())
    assert (case.id, case.patient, case.group, case.split) == ("x", "Jürgen", "IPH", "test")
    assert np.array_equal(case.image.array, head(3).array) and case.image.unit == "HU"
    assert case.truth.sum() == 1 and case.region.dtype == bool and case.region.sum() == 1 and case.slice_label is None


def test_an_image_may_be_a_folder_of_dicom_and_keeps_its_shear(tmp_path):
    save(series(np.arange(-84, 85, 6.0), tilt_deg=15.0), tmp_path / "scan")
    found = TABLE.find(write_table(tmp_path / "cases.csv", [{"id": "x", "image": "scan"}]), LayoutOptions())
    case = TABLE.read(found.sources[0], LayoutOptions())
    assert case.image.is_sheared and case.image.unit == "HU" and lesion_ml(case.image) == pytest.approx(29.86, rel=0.03)
    assert case.truth is None and case.patient == "x"


def test_slices_may_be_labelled_instead_of_outlined(tmp_path):
    write_volume(head(), tmp_path / "a.nrrd")
    rows = [{"id": "weak", "image": "a.nrrd", "bleeding_slices": "1;2", "unknown_slices": "5"},
            {"id": "clean", "image": "a.nrrd"}, {"id": "wrong", "image": "a.nrrd", "bleeding_slices": "6"}]  # fmt: skip
    sources = TABLE.find(write_table(tmp_path / "cases.csv", rows), LayoutOptions()).sources
    expected = [CLEAN, BLEEDING, BLEEDING, CLEAN, CLEAN, UNKNOWN]
    assert TABLE.read(sources[0], LayoutOptions()).slice_label.tolist() == expected
    assert TABLE.read(sources[1], LayoutOptions()).slice_label.tolist() == [CLEAN] * 6
    with pytest.raises(InputError, match="bleeding slices of 'wrong' are not slices 0 to 5"):
        TABLE.read(sources[2], LayoutOptions())


def test_all_faults_of_a_table_are_told_at_once(tmp_path):
    write_volume(head(), tmp_path / "a.nrrd")
    rows = [{"id": "good", "image": "a.nrrd"}, {"id": "good", "image": "a.nrrd"}, {"id": "", "image": "a.nrrd"},
            {"id": "gone", "image": "b.nrrd"},
            {"id": "half", "image": "a.nrrd", "truth": "t.nrrd", "age": "40"}]  # fmt: skip
    found = TABLE.find(write_table(tmp_path / "cases.csv", rows), LayoutOptions())
    assert [source.id for source in found.sources] == ["good"]
    kinds = [(finding.kind, finding.cases, finding.fault) for finding in found.findings]
    assert sorted(kinds) == sorted([
        ("double", ("good",), True), ("pairing", ("gone",), True), ("pairing", ("half",), True), ("table", (), True),
        ("table", (), False),
    ])  # fmt: skip
    assert "age" in next(finding.text for finding in found.findings if not finding.fault)


def test_tables_that_cannot_be_read_are_refused(tmp_path):
    (tmp_path / "odd.csv").write_text("name,file\n")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00id")
    for name, words in (
        ("odd.csv", "no column 'id'"),
        ("binary.csv", "cannot be read"),
        ("gone.csv", "cannot be read"),
    ):
        with pytest.raises(InputError, match=words) as caught:
            TABLE.find(tmp_path / name, LayoutOptions())
        one_sentence(caught)


def test_the_planted_evaluation_scans_come_in_with_their_exact_volumes(shared_data, tmp_path):
    planted = shared_data / "planted"
    rows = [{"id": name, "image": str(planted / f"{name}.nii.gz"), "truth": str(planted / f"{name}_truth.nii.gz")}
            for name in ("ge_b", "p56_a")]  # fmt: skip
    found = TABLE.find(write_table(tmp_path / "cases.csv", rows), LayoutOptions())
    known = json.loads((planted / "truth.json").read_text())
    for source in found.sources:
        case = TABLE.read(source, LayoutOptions())
        assert case.image.unit == "HU"
        for bleed in known[source.id]:
            voxels = (case.truth == bleed["label"]).sum(axis=(1, 2))
            assert voxels @ case.image.voxel_volumes_ml == pytest.approx(bleed["volume_ml"], abs=0.002)


# -- the values of masks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "words"),
    [([0, 0.5], "1 voxels with fractions"), ([0, 255], "--binary"), ([0, -1], "from -1 to 0"), ([0, 300], "to 300")],
)
def test_values_that_are_no_labels_are_refused(values, words):
    with pytest.raises(InputError, match=words) as caught:
        labels_of(np.array([[values]]), LayoutOptions())
    one_sentence(caught)


def test_binary_and_ignored_say_what_values_mean():
    mask = np.array([[[0.0, 1, 2, 255]]])
    assert labels_of(mask, LayoutOptions(binary=True)).ravel().tolist() == [0, 1, 1, 1]
    assert labels_of(mask, LayoutOptions(ignored=255)).ravel().tolist() == [0, 1, 2, IGNORED]
    assert labels_of(mask, LayoutOptions(ignored=2, binary=True)).ravel().tolist() == [0, 1, IGNORED, 1]


def test_values_that_look_like_no_ct_get_no_unit(tmp_path):
    write_volume(Volume(np.random.default_rng(0).integers(0, 200, (4, 9, 9)).astype(np.int16), np.eye(4)),
                 tmp_path / "mr.nrrd")  # fmt: skip
    source = TABLE.find(
        write_table(tmp_path / "cases.csv", [{"id": "x", "image": "mr.nrrd"}]), LayoutOptions()
    ).sources[0]
    assert TABLE.read(source, LayoutOptions()).image.unit == ""
    assert TABLE.read(source, LayoutOptions(unit="grey")).image.unit == "grey"


# -- BIDS --------------------------------------------------------------------------------------------------------


def bids(root: Path, images: list[str], masks: list[str]) -> Path:
    for name in images:
        put(root, name, head(len(name)))
    for name in masks:
        put(root / "derivatives" / "lesions", name, spot(head()))
    return root


def put(root: Path, name: str, volume: Volume) -> None:
    parts = [part for part in name.split("_") if part.startswith(("sub-", "ses-"))]
    folder = root.joinpath(*parts, "ct")
    folder.mkdir(parents=True, exist_ok=True)
    write_volume(volume, folder / f"{name}.nii.gz")


def test_masks_belong_to_images_by_their_entities(tmp_path):
    images = ["sub-01_ses-1_ct", "sub-01_ses-2_ct", "sub-02_run-1_ct", "sub-10_T1w", "sub-10_ct"]
    masks = ["sub-01_ses-1_label-lesion_mask", "sub-01_ses-2_space-orig_dseg", "sub-02_run-1_mask", "sub-10_mask"]
    root = bids(tmp_path, images, masks)
    (root / "participants.tsv").write_text(
        "participant_id\tage\tgroup\tsplit\nsub-01\t50\tIPH\ttrain\nsub-10\t6\t\ttest\n"
    )
    found = BIDS.find(root, LayoutOptions())
    assert found.findings == []
    told = [(source.id, source.patient, source.group, source.split) for source in found.sources]
    assert told == [
        ("sub-01_ses-1", "sub-01", "IPH", "train"), ("sub-01_ses-2", "sub-01", "IPH", "train"),
        ("sub-02_run-1", "sub-02", "", ""), ("sub-10", "sub-10", "", "test"),
    ]  # fmt: skip
    assert "ses-2_space-orig" in found.sources[1].files["truth"].name
    case = BIDS.read(found.sources[1], LayoutOptions())
    assert case.truth.sum() == 1 and case.image.unit == "HU"


def test_what_cannot_be_paired_is_told(tmp_path):
    root = bids(tmp_path, ["sub-1_ct", "sub-2_ct", "sub-3_ct"],
                ["sub-1_label-a_mask", "sub-1_label-b_mask", "sub-2_mask", "sub-9_mask"])  # fmt: skip
    found = BIDS.find(root, LayoutOptions())
    assert [source.id for source in found.sources] == ["sub-2"]
    words = [finding.text for finding in found.findings]
    assert len(words) == 3 and "2 masks" in words[0] and "'sub-3' has an image but no mask" in words[1]
    assert "'sub-9_mask.nii.gz' belongs to no image" in words[2]
    chosen = BIDS.find(root, LayoutOptions(mask_filter="label-a"))
    assert [source.id for source in chosen.sources] == ["sub-1"]


def test_kinds_of_images_are_chosen_by_name_where_none_is_ct(tmp_path):
    root = bids(tmp_path, ["sub-1_T1w", "sub-1_FLAIR"], ["sub-1_mask"])
    found = BIDS.find(root, LayoutOptions())
    assert found.sources == [] and "FLAIR, T1w" in found.findings[0].text
    assert [s.id for s in BIDS.find(root, LayoutOptions(image_suffix="T1w")).sources] == ["sub-1"]
    with pytest.raises(InputError, match="does not have the layout"):
        BIDS.find(tmp_path / "derivatives", LayoutOptions())
