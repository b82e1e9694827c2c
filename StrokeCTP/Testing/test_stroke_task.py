"""The stroke task from frames, and from maps, to a Result: volumes, geometry, vessels, what is kept, what is said."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from stroke_cases import LPS, QUICK, dice, frames, head, map_set, maps_array, scan, stored, with_times

from NeuraxisLib.errors import InputError
from NeuraxisLib.labels import LabelTable
from NeuraxisLib.result_folder import read_result, write_result
from NeuraxisLib.task import Progress
from NeuraxisLib.volume import Volume
from StrokeCTPLib import study
from StrokeCTPLib.task import TASK, StrokeOptions
from Training.simulation.ctp_stroke_phantom import ARTERY

PENUMBRA, CORE = 1, 2


def run(given, exclude=None, **options):
    inputs = {"perfusion": given} if exclude is None else {"perfusion": given, "exclude": exclude}
    return TASK.run(inputs, None, StrokeOptions(**{**QUICK, **options}), Progress())


def value(result, name: str) -> float:
    return next(m.value for m in result.measurements if m.name == name)


@pytest.fixture(scope="module")
def result():
    """The task at its defaults."""
    return run(scan(), motion="auto", edge_preserving=True, nihss=12, age=70, onset_hours=8)


@pytest.fixture(autouse=True)
def nothing_kept():
    study._kept.clear()


# -- what is found ------------------------------------------------------------------------------------------------


def test_core_and_penumbra_have_their_volumes_and_places(result):
    assert result.measurements[0].name == "Core volume"
    assert value(result, "Core volume") == pytest.approx(50.5, rel=0.2)
    assert value(result, "Hypoperfused volume") == pytest.approx(210.7, rel=0.12)
    labels = result.labels.array
    assert dice(labels > 0, head().hypoperfused) > 0.9 and dice(labels == CORE, head().core) > 0.8
    voxel_ml = float(result.labels.voxel_volumes_ml[0])
    assert value(result, "Core volume") == pytest.approx((labels == CORE).sum() * voxel_ml)
    assert value(result, "Mismatch volume") == pytest.approx((labels == PENUMBRA).sum() * voxel_ml)


def test_every_volume_has_an_interval_that_holds_it(result):
    volumes = [m for m in result.measurements if m.unit == "mL"]
    assert len(volumes) == 3
    for m in volumes:
        assert m.interval[0] <= m.value <= m.interval[1] and m.interval[1] > m.interval[0]
    assert volumes[0].interval[0] < 50.5 < volumes[0].interval[1]
    for _, drawn, low, high in result.tables["grades"].rows:
        assert low <= drawn <= high
    assert set(np.unique(result.maps["doubt"].volume.array)) == {0, 1}
    assert len(result.key_slices) == 5 and len(set(result.key_slices)) == 5


def test_grades_fall_with_the_delay(result):
    rows = result.tables["grades"].rows
    assert [row[0] for row in rows] == ["Tmax > 4 s", "Tmax > 6 s", "Tmax > 8 s", "Tmax > 10 s"]
    drawn = [row[1] for row in rows]
    assert drawn == sorted(drawn, reverse=True) and drawn[3] < 60 < drawn[1]


def test_criteria_are_told_with_their_items(result):
    rows = {(trial, text): outcome for trial, text, outcome in result.tables["criteria"].rows}
    assert rows["DEFUSE 3", "all of"] == "criteria met"
    assert rows["DEFUSE 3", "NIHSS of at least 6"] == "met"
    assert rows["EXTEND", "all of"] == "criteria met"
    assert "no advice" in result.tables["criteria"].title
    unknown = run(map_set()).tables["criteria"].rows
    assert ("DEFUSE 3", "NIHSS of at least 6", "unknown input") in unknown


def test_maps_have_units_ranges_and_the_phantom_s_values(result):
    assert list(result.maps)[-1] == "tmax"  # the report lays the last one over its pictures
    assert {name: m.volume.unit for name, m in result.maps.items() if name in ("cbf", "cbv", "mtt", "tmax", "ttp")} == {
        "cbf": "mL/100 g/min", "cbv": "mL/100 g", "mtt": "s", "tmax": "s", "ttp": "s",
    }  # fmt: skip
    assert result.maps["cbf"].value_range == (0, 100) and result.maps["tmax"].value_range == (0, 12)
    tissue = result.maps["brain"].volume.array == 2
    assert not result.maps["cbf"].volume.array[~tissue].any()
    normal = head().brain & ~head().hypoperfused & tissue
    truth = head().truth["cbv"][normal].mean()
    assert result.maps["cbv"].volume.array[normal].mean() == pytest.approx(truth, rel=0.15)
    assert result.maps["delay"].volume.array[head().hypoperfused & ~head().core & tissue].mean() > 3


def test_curves_and_points_show_the_vessels(result):
    curves = {curve.name: curve for curve in result.curves["vessels"].curves}
    assert list(curves) == ["Artery (AIF)", "Artery, corrected", "Vein (VOF)", "Mean tissue"]
    corrected = np.array(curves["Artery, corrected"].y)
    assert np.corrcoef(corrected, head().artery_hu)[0, 1] > 0.97
    assert max(curves["Vein (VOF)"].y) > max(curves["Artery (AIF)"].y) / 2 > max(curves["Mean tissue"].y)
    points = {point.name: point for point in result.points}
    place = np.linalg.inv(result.source.ijk_to_ras) @ [*points["Artery (AIF)"].position_ras_mm, 1]
    i, j, k = np.rint(place[:3]).astype(int)
    assert head().tissue[k, j, i] == ARTERY
    assert "found; its height times" in points["Artery (AIF)"].note
    assert all(0 < p.confidence <= 1 for name, p in points.items() if "candidate" in name)


def test_provenance_says_how_and_names_no_path(result, tmp_path):
    facts = result.provenance
    assert facts["options"]["family"] == "calibrated" and facts["lesions"]["drawn_by"] == "thresholds"
    assert facts["acquisition"]["frames"] == 45 and facts["acquisition"]["interval_s"] == pytest.approx(1.5)
    assert facts["motion"] == {"corrected": False, "reason": "none seen"}
    assert value(result, "Tmax threshold") == facts["lesions"]["late_s"] == facts["calibration"]["tmax_s"]
    np.savetxt(tmp_path / "secret.txt", np.arange(45) * 1.5)
    given = run(scan(), times=str(tmp_path / "secret.txt"))
    assert given.provenance["options"]["times"] == "given"
    assert "secret" not in json.dumps(given.provenance)


def test_the_result_is_written_and_read_as_a_map_set_again(result, tmp_path):
    from StrokeCTPLib.map_set import read_map_set

    folder = write_result(result, tmp_path / "case")
    assert "points.mrk.json" in {path.name for path in folder.iterdir()}
    again = read_result(folder)
    assert [label.name for label in LabelTable.read(TASK.resources / "labels.csv")] == ["Penumbra", "Core"]
    assert np.array_equal(again.labels.array, result.labels.array) and again.points == result.points
    maps = read_map_set(folder).require(("cbf", "cbv", "mtt", "tmax", "ttp"))
    known = maps.known
    assert np.allclose(maps.maps["tmax"].array[known], result.maps["tmax"].volume.array[known])
    page = (folder / "report.html").read_text()
    for words in ("Core volume", "Contrast over time", "DEFUSE 3", "no advice", "Artery (AIF)"):
        assert words in page


# -- geometry and times -------------------------------------------------------------------------------------------

ORDERS = [((0, 1, 2), (True, False, True)), ((1, 0, 2), (False, True, False)), ((2, 1, 0), (False, False, True))]


@pytest.mark.parametrize("axes, flips", ORDERS, ids=["turned", "coronal", "sagittal"])
def test_the_stored_order_of_the_axes_changes_nothing(axes, flips):
    plain = run(scan(), family="svd")
    other = stored(scan(), axes, flips)
    found = run(other, family="svd")
    assert found.labels.array.shape == other.array.shape[1:]
    assert np.allclose(found.source.ijk_to_ras, other.ijk_to_ras)
    order = other.axial()[1]
    assert np.array_equal(order.apply_array(found.labels.array), plain.labels.array)
    assert np.array_equal(order.apply_array(found.maps["tmax"].volume.array), plain.maps["tmax"].volume.array)
    assert found.points[0].position_ras_mm == pytest.approx(plain.points[0].position_ras_mm)
    if flips == (True, False, True):
        assert found.key_slices == [7 - k for k in plain.key_slices]


def test_a_tilted_gantry_counts_in_the_volumes_as_it_should():
    """Sheared slices keep their distance along the normal: the same voxels have the same volume."""
    tilted = scan()
    matrix = tilted.ijk_to_ras.copy()
    matrix[:3, 2] += [0.0, 3.0, 0.0]
    tilted = replace(tilted, ijk_to_ras=matrix)
    assert tilted.is_sheared
    plain, found = run(scan(), family="svd"), run(tilted, family="svd")
    assert value(found, "Hypoperfused volume") == pytest.approx(value(plain, "Hypoperfused volume"))
    assert found.source.is_sheared
    artery = np.array(found.points[0].position_ras_mm) - np.array(plain.points[0].position_ras_mm)
    k = np.rint((plain.points[0].position_ras_mm[2] - plain.source.ijk_to_ras[2, 3]) / 10)
    assert artery == pytest.approx([0, 3.0 * k, 0])


def test_slices_with_their_own_times_are_brought_together():
    """Every second slice is taken half a frame later; without its times its Tmax would be half a frame too early."""
    import torch

    from StrokeCTPLib.concentration import resampling_matrix

    plain = scan(noise_hu=0.5)
    times = plain.frame_times_s[:, None] + np.arange(8) % 2 * 0.75
    array = plain.array.astype(np.float32)
    for k in range(8):
        weights = torch.from_numpy(resampling_matrix(plain.frame_times_s, times[:, k])).float()
        array[:, k] = torch.tensordot(weights, torch.from_numpy(array[:, k]), 1).numpy()
    shuttled = with_times(replace(plain, array=np.rint(array).astype(np.int16)), times)
    upside_down = stored(shuttled, (0, 1, 2), (True, False, False))
    upside_down = with_times(upside_down, times[:, ::-1])
    expected = run(plain, family="svd").maps["tmax"].volume.array
    for given, flip in ((shuttled, slice(None)), (upside_down, slice(None, None, -1))):
        found = run(given, family="svd").maps["tmax"].volume.array[flip]
        both = (found > 0) & (expected > 0)
        assert abs(np.median((found - expected)[both])) < 0.2


# -- choices of the user ------------------------------------------------------------------------------------------


def test_another_threshold_or_artery_repeats_no_preparation(monkeypatch):
    calls = []
    prepare, maps_of = study.prepare, study.maps_of
    monkeypatch.setattr(study, "prepare", lambda *a, **k: calls.append("prepare") or prepare(*a, **k))
    monkeypatch.setattr(
        study,
        "maps_of",
        lambda p, a, o, e=None, g=None: calls.append("again" if e else "maps") or maps_of(p, a, o, e, g),
    )
    first = run(scan())
    assert calls == ["prepare", "maps"]
    strict = run(scan(), rcbf=0.2)
    assert calls == ["prepare", "maps", "again"]
    assert value(strict, "Core volume") < value(first, "Core volume")
    run(scan(), rcbf=0.2, smallest_ml=10.0)
    assert calls == ["prepare", "maps", "again"]  # nothing but drawing
    k, j, i = np.argwhere(head().tissue == ARTERY)[-3]
    chosen = run(scan(), artery=f"{k},{j},{i}")
    assert calls[3:] == ["maps"] and "chosen by you" in chosen.points[0].note
    brighter = replace(scan(), array=scan().array + np.int16(1))
    run(brighter)
    assert calls[4:] == ["prepare", "maps"]


def test_the_same_answer_comes_from_what_is_kept_and_afresh():
    first = run(scan())
    run(scan(), rcbf=0.2)
    kept = run(scan(), rcbf=0.3)
    assert kept.measurements == first.measurements
    assert np.array_equal(kept.labels.array, first.labels.array)


def test_large_studies_are_not_kept(monkeypatch):
    monkeypatch.setattr(study, "KEPT_BYTES", 1000)
    run(scan())
    assert study._kept.study is None and study._kept.maps is None


@pytest.mark.parametrize("what", ["artery", "vein"])
def test_a_voxel_outside_the_image_is_no_vessel(what):
    with pytest.raises(InputError, match=f"of the {what} lies outside the image of 8 slices, 96 rows and 96 columns"):
        run(scan(), **{what: "8,0,0"})


def test_a_chosen_voxel_counts_as_the_image_is_stored():
    other = stored(scan(), (0, 1, 2), (True, False, True))
    marked = stored(Volume(head().tissue, scan().ijk_to_ras), (0, 1, 2), (True, False, True)).array
    k, j, i = np.argwhere(marked == ARTERY)[5]
    result = run(other, artery=f"{k},{j},{i}", family="svd")
    place = other.ijk_to_ras @ [i, j, k, 1]
    assert np.linalg.norm(np.array(result.points[0].position_ras_mm) - place[:3]) < 4


def test_tissue_ruled_out_is_in_no_lesion():
    mask = np.zeros((8, 96, 96), np.uint8)
    mask[:, :, 48:] = 1  # the affected side
    result = run(scan(), exclude=Volume(mask, scan().ijk_to_ras), family="svd")
    assert not result.labels.array[mask > 0].any()
    with pytest.raises(InputError, match="another grid"):
        run(scan(), exclude=Volume(mask, LPS), family="svd")


@pytest.mark.parametrize("family", ["svd", "model"])
def test_the_other_families_draw_the_same_stroke(family):
    result = run(scan(noise_hu=0.5), family=family)
    assert value(result, "Hypoperfused volume") == pytest.approx(210.7, rel=0.15)
    threshold = "Delay threshold" if family == "model" else "Tmax threshold"
    assert value(result, threshold) == pytest.approx(3.0 if family == "model" else 6.0, abs=0.8)


# -- maps that are given ------------------------------------------------------------------------------------------


def test_given_maps_are_measured_by_hand_counted_volumes():
    result = run(map_set())
    late_ml = (20 * 30 - 4) * 4 * 0.005  # the median of 3 x 3 pixels takes the corners
    assert value(result, "Hypoperfused volume") == pytest.approx(late_ml)
    assert value(result, "Core volume") == pytest.approx(10 * 15 * 2 * 0.005)
    assert value(result, "Mismatch ratio") == pytest.approx(late_ml / 1.5)
    assert value(result, "Reference CBF") == pytest.approx(50)
    assert value(result, "CBV index") == pytest.approx(1.0)
    assert value(result, "Hypoperfusion intensity ratio") == 0
    assert result.provenance["maps"] == {"source": "image files", "given": ["cbf", "cbv", "tmax"]}
    assert result.curves == {} and result.points == []


def test_without_a_core_there_is_no_ratio():
    result = run(map_set(cbf=np.where(maps_array()["cbf"] > 0, 50, 0).astype(np.float32)))
    ratio = next(m for m in result.measurements if m.name == "Mismatch ratio")
    assert (ratio.value, ratio.note) == (None, "No core, so there is no ratio.")
    assert value(result, "Core volume") == 0


def test_maps_without_blood_volume_have_no_index_of_it():
    result = run(map_set(cbv=None))
    assert value(result, "CBV index") is None
    assert value(result, "Hypoperfused volume") == pytest.approx(11.92)


def test_a_network_draws_instead_of_thresholds(monkeypatch):
    from types import SimpleNamespace

    from StrokeCTPLib import prediction

    def predict(maps, model, options, progress):
        late = np.zeros((3, 6, 100, 80), np.float32)
        late[0] = 1
        late[:, 1:3, 30:50, 42:62] = np.array([0.0, 1.0, 0.0])[:, None, None, None]  # 4 mL for sure
        late[:, 1:3, 30:40, 42:62] = np.array([0.1, 0.3, 0.6])[:, None, None, None]  # half of it likelier core
        return late, {"classes": ["background", "penumbra", "core"], "warnings": ["Be careful."], "device": "cpu"}

    monkeypatch.setattr(prediction, "predict", predict)
    model = SimpleNamespace(
        name="net", title="Net", sha256="00", path=SimpleNamespace(name="net.safetensors"), header={"notice": "Toy."}
    )
    result = TASK.run({"perfusion": map_set()}, model, StrokeOptions(**QUICK), Progress())
    assert value(result, "Hypoperfused volume") == pytest.approx(4.0)
    core = result.measurements[0]
    assert core.value == pytest.approx(2.0) and core.interval == pytest.approx((0.0, 2.0))
    assert value(result, "Hypoperfused volume by thresholds") == pytest.approx(11.92)
    assert result.warnings[-2:] == ["Be careful.", "Toy."]
    assert result.provenance["lesions"]["drawn_by"] == "network" and result.provenance["model"]["name"] == "net"


def test_frames_in_memory_are_checked_as_those_of_files():
    with pytest.raises(InputError, match="one image without frames"):
        frames(Volume(np.zeros((4, 8, 8)), LPS))
    with pytest.raises(InputError, match="does not say when its frames were taken"):
        frames(Volume(scan().array, LPS))
    report = frames(Volume(scan().array, LPS), interval_s=2.0).report
    assert report.interval_s == 2.0 and report.time_source == "the interval of 2 s"
