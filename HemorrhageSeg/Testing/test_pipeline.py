"""The hemorrhage pipeline on phantoms whose bleeds are known exactly, and on the bundled real scan.

The phantom's network calls everything above 55 HU blood that is not next to bone, so that what is tested is all the
rest: brain, grids, way back, threshold, measures, order of axes, provenance.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pipeline_phantom import BLOOD_HU, CENTRE_RAS, RADIUS_MM, SPHERE_ML, head, header, unequal_gaps

from HemorrhageSegLib import networks, pipeline
from HemorrhageSegLib.task import TASK, HemorrhageOptions
from NeuraxisLib.errors import CancelledError, InputError, ModelError
from NeuraxisLib.models import ModelFile, load_model, write_model
from NeuraxisLib.result import Result
from NeuraxisLib.task import Progress, get_task
from NeuraxisLib.uncertainty import CERTAIN_BITS
from NeuraxisLib.volume import Volume


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelFile:
    path = tmp_path_factory.mktemp("models") / "bright.safetensors"
    write_model(path, {"anchor": torch.zeros(1)}, header())
    return load_model(path)


@pytest.fixture(autouse=True)
def known_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(networks.NETWORKS, "Bright", "pipeline_phantom:Bright")


def process(volume: Volume, model: ModelFile, **options) -> Result:
    return TASK.run({"ct": volume}, model, HemorrhageOptions(device="cpu", precision="float32", **options), Progress())


@pytest.fixture(scope="module")
def upright() -> Volume:
    return head()


@pytest.fixture(scope="module")
def upright_result(upright: Volume, model: ModelFile) -> Result:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(networks.NETWORKS, "Bright", "pipeline_phantom:Bright")
        return process(upright, model)


def value(result: Result, name: str) -> float:
    return next(measurement.value for measurement in result.measurements if measurement.name == name)


# -- measured right -------------------------------------------------------------------------------------------


def test_a_sphere_has_its_volume(upright_result: Result) -> None:
    total = upright_result.measurements[0]
    assert total.name == "Total volume"
    assert total.unit == "mL"
    assert total.value == pytest.approx(SPHERE_ML, rel=0.02)
    assert total.interval[0] < total.value < total.interval[1]
    assert total.interval[0] == pytest.approx(SPHERE_ML, rel=0.15)
    assert total.interval[1] == pytest.approx(SPHERE_ML, rel=0.15)


def test_a_sphere_has_its_diameter_height_and_place(upright_result: Result) -> None:
    # corners of voxels on slices of 4 mm, which the sphere fills from top to bottom in part
    assert 2 * RADIUS_MM <= value(upright_result, "Largest diameter") <= 2 * RADIUS_MM + 2 * 4
    assert value(upright_result, "ABC/2") == pytest.approx(SPHERE_ML * 3 / np.pi, rel=0.12)
    assert value(upright_result, "ABC/2, Kothari") < value(upright_result, "ABC/2")
    assert value(upright_result, "Slices touched") == pytest.approx(2 * RADIUS_MM / 4, abs=1)
    assert value(upright_result, "Bleeds") == 1
    table = upright_result.tables["bleeds"]
    row = dict(zip((name for name, _ in table.columns), table.rows[0]))
    np.testing.assert_allclose([row["Centre R"], row["Centre A"], row["Centre S"]], CENTRE_RAS, atol=0.5)
    assert row["Mean density"] == pytest.approx(BLOOD_HU, abs=3)
    assert row["Volume, low"] < row["Volume"] < row["Volume, high"]
    assert row["Mean probability"] > 0.9


def test_the_label_map_is_the_sphere(upright: Volume, upright_result: Result) -> None:
    labels = upright_result.labels
    assert labels.array.dtype == np.uint8
    np.testing.assert_array_equal(labels.ijk_to_ras, upright.ijk_to_ras)
    k, j, i = np.nonzero(labels.array)
    places = (upright.ijk_to_ras @ np.stack([i, j, k, np.ones_like(i)]))[:3].T
    assert np.linalg.norm(places - CENTRE_RAS, axis=1).max() < RADIUS_MM + 3
    assert set(np.unique(labels.array)) == {0, 1}


@pytest.mark.parametrize("options", [{"tilt_deg": 20.0}, {"spacing": (1.2, 1.2, 1.6)}, {"spacing": (1.4, 0.8, 5.0)}])
def test_tilt_and_spacing_leave_the_volume(upright_result: Result, model: ModelFile, options: dict) -> None:
    assert process(head(**options), model).measurements[0].value == pytest.approx(SPHERE_ML, rel=0.03)
    if "tilt_deg" in options:
        assert process(head(**options), model).measurements[0].value == pytest.approx(
            upright_result.measurements[0].value, rel=0.02
        )


def test_unequal_gaps_leave_the_volume(model: ModelFile) -> None:
    assert process(unequal_gaps(), model).measurements[0].value == pytest.approx(SPHERE_ML, rel=0.03)


@pytest.mark.parametrize(("axes", "flips"), [((0, 1, 2), (1, 1, 1)), ((1, 0, 2), (0, 1, 0)), ((2, 1, 0), (0, 0, 1))])
def test_the_stored_order_of_axes_does_not_matter(upright, upright_result, model, axes, flips) -> None:
    stored = restored(upright, axes, flips)
    result = process(stored, model)
    assert result.measurements[0].value == pytest.approx(upright_result.measurements[0].value, rel=0.01)
    expected = restored(replace(upright, array=upright_result.labels.array), axes, flips).array
    assert (result.labels.array != expected).sum() < 0.01 * expected.sum()
    np.testing.assert_array_equal(result.labels.ijk_to_ras, stored.ijk_to_ras)
    assert result.maps["probability"].volume.array.shape == stored.array.shape


def restored(volume: Volume, axes: tuple[int, int, int], flips: tuple[int, int, int]) -> Volume:
    """The same image stored with permuted and reversed axes."""
    array = volume.array.transpose(axes)
    matrix = volume.ijk_to_ras.copy()
    matrix[:, :3] = volume.ijk_to_ras[:, [2 - axes[2], 2 - axes[1], 2 - axes[0]]]
    for axis, flip in enumerate(flips):
        if flip:
            matrix[:, 3] += matrix[:, 2 - axis] * (array.shape[axis] - 1)
            matrix[:, 2 - axis] *= -1
            array = np.flip(array, axis)
    return replace(volume, array=np.ascontiguousarray(array), ijk_to_ras=matrix)


# -- rules ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two_bleeds() -> Volume:
    return head(bleeds=((CENTRE_RAS, RADIUS_MM), (np.array([-30.0, -20.0, 12.0]), 6.0)))


def test_bleeds_are_counted_and_sorted(two_bleeds: Volume, model: ModelFile) -> None:
    result = process(two_bleeds, model)
    volumes = [row[1] for row in result.tables["bleeds"].rows]
    assert len(volumes) == 2
    assert volumes[0] == pytest.approx(SPHERE_ML, rel=0.02)
    assert volumes[1] == pytest.approx(4 / 3 * np.pi * 0.216, rel=0.15)
    assert result.measurements[0].value == pytest.approx(sum(volumes), abs=1e-2)
    assert process(two_bleeds, model, min_component_ml=2.0).tables["bleeds"].rows[1:] == ()


def test_blood_outside_the_brain_is_not_reported(model: ModelFile) -> None:
    scalp = np.array([0.0, 0.0, 92.0])
    face = np.array([0.0, 102.0, 5.0])
    result = process(head(bleeds=((CENTRE_RAS, RADIUS_MM), (scalp, 9.0), (face, 9.0))), model)
    assert result.measurements[0].value == pytest.approx(SPHERE_ML, rel=0.03)


def test_blood_along_the_skull_is_searched(model: ModelFile) -> None:
    """A layer of blood 6 mm thick on the inner table lies in the space that is searched."""
    volume = head(bleeds=())
    k, j, i = np.indices(volume.array.shape)
    places = np.einsum("rc,c...->r...", volume.ijk_to_ras[:3], np.stack([i, j, k, np.ones_like(i)]).astype(np.float32))
    depth = np.sqrt((places[0] / 70) ** 2 + (places[1] / 88) ** 2 + (places[2] / 70) ** 2)
    layer = (depth < 1) & (depth > 0.915) & (places[0] > 30) & (abs(places[1]) < 50) & (abs(places[2] - 5) < 30)
    array = np.where(layer, np.int16(BLOOD_HU), volume.array)
    brain = process(replace(volume, array=array), model, keep_brain_mask=True).maps["brain"].volume.array > 0
    assert (brain & layer).sum() > 0.95 * layer.sum()


def test_no_blood_gives_an_empty_result_with_an_interval(model: ModelFile) -> None:
    result = process(head(bleeds=()), model)
    assert result.measurements[0].value == 0
    assert result.measurements[0].interval[0] == 0
    assert not result.labels.array.any()
    assert result.tables["bleeds"].rows == ()
    assert value(result, "ABC/2") is None


def test_the_threshold_can_be_chosen(upright: Volume, upright_result: Result, model: ModelFile) -> None:
    strict, loose = (process(upright, model, threshold=t).measurements[0].value for t in (0.95, 0.05))
    assert strict < upright_result.measurements[0].value < loose


def test_maps_hold_probability_and_entropy(upright_result: Result) -> None:
    probability = upright_result.maps["probability"].volume.array
    entropy = upright_result.maps["entropy"].volume.array
    assert probability.dtype == entropy.dtype == np.float32
    assert probability.min() >= 0 and probability.max() <= 1
    np.testing.assert_array_equal(probability * 1024, np.rint(probability * 1024))
    middle = (probability > 0.4) & (probability < 0.6)
    assert middle.any()
    assert entropy[middle].min() > 0.97
    assert entropy[probability == 0].max() == 0
    assert (upright_result.labels.array > 0)[probability < 0.5].sum() == 0


def test_key_slices_are_the_most_uncertain_ones(upright_result: Result) -> None:
    entropy = upright_result.maps["entropy"].volume.array
    score = np.where(entropy >= CERTAIN_BITS, entropy, 0).sum(axis=(1, 2))
    assert len(upright_result.key_slices) == 5
    assert upright_result.key_slices[0] == score.argmax()
    assert list(score[upright_result.key_slices]) == sorted(score[upright_result.key_slices], reverse=True)


def test_the_brain_mask_is_added_on_request(upright: Volume, upright_result: Result, model: ModelFile) -> None:
    assert set(upright_result.maps) == {"probability", "entropy"}
    brain = process(upright, model, keep_brain_mask=True).maps["brain"].volume
    assert brain.array.sum() * upright.voxel_volumes_ml[0] == pytest.approx(
        4 / 3 * np.pi * 70 * 88 * 70 / 1000, rel=0.06
    )
    assert not (upright_result.labels.array.astype(bool) & ~brain.array.astype(bool)).any()


def test_blood_at_the_edge_of_the_scan_is_a_lower_bound(upright: Volume, upright_result: Result, model) -> None:
    middle = int(round(np.linalg.solve(upright.ijk_to_ras, [*CENTRE_RAS, 1])[2]))
    cut = replace(upright, array=upright.array[: middle + 2])
    assert any("at least what is given" in warning for warning in process(cut, model).warnings)
    assert not any("at least what is given" in warning for warning in upright_result.warnings)


# -- provenance, progress, errors -----------------------------------------------------------------------------


def test_provenance_says_how_it_was_made(upright_result: Result, model: ModelFile) -> None:
    provenance = upright_result.provenance
    assert provenance["model"]["sha256"] == model.sha256
    assert provenance["device"] == "cpu"
    assert provenance["precision"] == "float32"
    assert provenance["options"]["threshold"] == -1.0
    assert {"brain", "slices", "network", "prediction", "measures"} <= set(provenance["seconds"])
    assert str(model.path.parent) not in repr(provenance)
    assert "A threshold, not a trained network." in upright_result.warnings


def test_runs_are_repeatable(upright: Volume, upright_result: Result, model: ModelFile) -> None:
    again = process(upright, model)
    np.testing.assert_array_equal(
        again.maps["probability"].volume.array, upright_result.maps["probability"].volume.array
    )
    assert again.measurements == upright_result.measurements


def test_progress_rises_and_every_stage_can_be_cancelled(model: ModelFile) -> None:
    upright = head(spacing=(2.0, 2.0, 6.0))
    seen: list[tuple[float, str]] = []
    TASK.run({"ct": upright}, model, HemorrhageOptions(device="cpu"), Progress(lambda *report: seen.append(report)))
    fractions = [fraction for fraction, _ in seen]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1
    stages = list(dict.fromkeys(stage for _, stage in seen))
    assert len(stages) >= 5
    for stage in stages:
        told: list[str] = []
        progress = Progress(lambda fraction, name, told=told: told.append(name), lambda told=told, s=stage: s in told)
        if stage == stages[-1]:
            told.clear()
        with pytest.raises(CancelledError):
            TASK.run({"ct": upright}, model, HemorrhageOptions(device="cpu"), progress)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"meta": {"modality": "MR"}}, "not a CT"),
        ({"array": np.zeros((20, 64, 64), np.int16)}, "same value"),
        ({"array": np.full((20, 64, 64), np.nan, np.float32)}, "not a number"),
    ],
)
def test_what_is_no_head_ct_is_refused(upright: Volume, model: ModelFile, change: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        process(replace(upright, **change), model)


def test_no_brain_in_view_is_refused(model: ModelFile) -> None:
    rng = np.random.default_rng(0)
    array = np.where(np.indices((20, 96, 96))[1] > 50, 30, -1000) + rng.normal(0, 5, (20, 96, 96))
    array[:, 60:64, 40:60] = 800
    volume = Volume(array.astype(np.int16), np.diag([-2.0, -2.0, 5.0, 1.0]), "HU", meta={"modality": "CT"})
    with pytest.raises(InputError, match="no brain"):
        process(volume, model)


def test_an_impossible_preprocessing_is_refused_before_anything_else(upright: Volume, tmp_path: Path) -> None:
    path = tmp_path / "odd.safetensors"
    write_model(path, {"anchor": torch.zeros(1)}, header(preprocessing={"size": 100}))
    with pytest.raises(ModelError, match="preprocessing"):
        process(upright, load_model(path))


@pytest.mark.parametrize("options", [{"precision": "float16"}, {"threshold": 1.0}, {"threshold": 0.0}])
def test_impossible_options_are_refused(options: dict) -> None:
    with pytest.raises(InputError):
        HemorrhageOptions(**options)


def test_the_task_is_in_the_list_and_explains_its_options() -> None:
    import dataclasses

    assert get_task("hemorrhage") is TASK
    assert all(field.metadata.get("help") for field in dataclasses.fields(HemorrhageOptions))
    assert (TASK.resources / "labels.csv").is_file()


# -- legacy ---------------------------------------------------------------------------------------------------


def test_the_legacy_threshold_outlines_more(upright: Volume, upright_result: Result, model: ModelFile) -> None:
    legacy = process(upright, model, legacy_mask_threshold=True)
    low = process(upright, model, threshold=1 / 255).measurements[0].value
    assert legacy.measurements[0].value > 1.05 * upright_result.measurements[0].value
    assert legacy.measurements[0].value == pytest.approx(low, rel=0.1)
    assert legacy.provenance["options"]["legacy_mask_threshold"]


def test_the_stretched_sheet_makes_certain_blood_of_faint_traces(upright: Volume, tmp_path: Path) -> None:
    path = tmp_path / "faint.safetensors"
    write_model(path, {"anchor": torch.full((1,), -25.0)}, header())  # the brightest tissue stays below 1 %
    faint = load_model(path)
    plain = process(upright, faint, min_component_ml=0.0)
    stretched = process(upright, faint, min_component_ml=0.0, legacy_stretched_sheet=True)
    assert plain.maps["probability"].volume.array.max() < 0.01
    assert plain.measurements[0].value == 0
    assert stretched.maps["probability"].volume.array.max() > 0.5
    assert stretched.measurements[0].value > 0


def test_the_fixed_dpi_volume_stands_beside_the_true_one(upright: Volume, upright_result: Result, model) -> None:
    result = process(upright, model, legacy_fixed_dpi_volume=True)
    assert result.measurements[0].value == upright_result.measurements[0].value
    legacy = value(result, "Volume, legacy count")
    side_px = 1440
    pixel_mm = result.provenance["grid"]["pixel_mm"] * 192 / side_px
    # the same area in screen pixels, taken for 96 dpi and 4.5 mm instead of its true size and 4 mm
    expected = SPHERE_ML * (25.4 / 96 / pixel_mm) ** 2 * 4.5 / 4.0
    assert legacy == pytest.approx(expected, rel=0.15)


def test_batch_statistics_are_an_option(upright: Volume, model: ModelFile) -> None:
    assert process(upright, model, legacy_batch_statistics=True).provenance["options"]["legacy_batch_statistics"]


# -- the bundled scan -----------------------------------------------------------------------------------------


def test_the_bundled_scan_runs_with_the_real_network(tmp_path: Path) -> None:
    from HemorrhageSegLib.networks.drunet import DRUNet
    from NeuraxisLib.files import read_volume

    arguments = {"in_channels": 1, "base": 4}
    preprocessing = {**header()["preprocessing"], "size": 64}
    path = tmp_path / "drunet.safetensors"
    changes = {"architecture": {"name": "DRUNet", "arguments": arguments}, "preprocessing": preprocessing}
    torch.manual_seed(1)
    write_model(path, DRUNet(**arguments).state_dict(), header(**changes, flip_averaging=True))
    scan = read_volume(TASK.resources / "SampleData" / "head_ct_hemorrhage.nrrd")
    result = process(scan, load_model(path))
    assert result.labels.array.shape == scan.array.shape
    assert result.maps["probability"].volume.array.any()
    assert len(result.key_slices) == pipeline.KEY_SLICES
