"""From a volume to named discs on disk, with an oracle for a network, and through every door with a real one."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from disc_oracle import field_of_view, images_of, oracle, spine
from original_hourglass import Original
from typer.testing import CliRunner

from NeuraxisLib import RESEARCH_USE_NOTICE
from NeuraxisLib.checkpoint_import import import_checkpoint
from NeuraxisLib.cli import make_app
from NeuraxisLib.errors import CancelledError, GeometryError, InputError, ModelError
from NeuraxisLib.files import write_volume
from NeuraxisLib.inference import build_network
from NeuraxisLib.models import ModelFile, load_model, write_model
from NeuraxisLib.result import Result
from NeuraxisLib.result_folder import read_result, write_result
from NeuraxisLib.run import run_case
from NeuraxisLib.task import Progress, get_task
from NeuraxisLib.volume import Volume
from SpineDiscLabelLib import pipeline
from SpineDiscLabelLib.candidates import Candidate
from SpineDiscLabelLib.discs import DISC_COUNT, DISC_NAMES
from SpineDiscLabelLib.locate import locate
from SpineDiscLabelLib.networks import NETWORKS
from SpineDiscLabelLib.networks.hourglass import StackedHourglass
from SpineDiscLabelLib.pair import merged
from SpineDiscLabelLib.preprocessing import PUBLISHED, SagittalPreprocessing
from SpineDiscLabelLib.task import DiscOptions

LUMBAR = range(19, 26)


def header(**more) -> dict:
    return {
        "name": "tiny",
        "title": "Tiny",
        "task": "discs",
        "architecture": {
            "name": "StackedHourglass",
            "arguments": {"stacks": 1, "width": 8, "classes": 25, "in_channels": 3},
        },
        "preprocessing": SagittalPreprocessing().to_dict(),
        "labels": {str(number): name for number, name in DISC_NAMES.items()},
        "threshold": 0.2,
        "min_component_ml": 0.0,
        "uncertainty": {"kind": "none"},
        "training": {},
        "licence": "Apache-2.0",
        "notice": RESEARCH_USE_NOTICE,
        "scores": {},
        **more,
    }


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> ModelFile:
    """A model file with an untrained network."""
    torch.manual_seed(0)
    network = StackedHourglass(stacks=1, width=8, classes=25)
    path = tmp_path_factory.mktemp("models") / "tiny.safetensors"
    write_model(path, network.state_dict(), header())
    return load_model(path, "discs")


@pytest.fixture
def sees(monkeypatch):
    """Lets the pipeline see these discs, whatever the image shows."""

    def see(discs: np.ndarray, numbers) -> None:
        monkeypatch.setattr(
            pipeline, "sagittal_images", lambda volume, shown: images_of(volume, discs, numbers, shown)
        )
        monkeypatch.setattr(pipeline, "disc_predictor", lambda *_: oracle())

    return see


def label(volume: Volume, model: ModelFile, second: Volume | None = None, **options) -> Result:
    inputs = {"mr": volume} | ({} if second is None else {"second": second})
    return pipeline.run(inputs, model, DiscOptions(**options), Progress())


def test_lumbar_discs_get_their_names_places_and_map(sees, model: ModelFile):
    discs = spine(LUMBAR, lean_mm=6.0, top_mm=-30.0)
    sees(discs, LUMBAR)
    volume = field_of_view(13, 4.0, 320, 280, 0.9)
    result = label(volume, model)
    assert [point.name for point in result.points] == [DISC_NAMES[number] for number in LUMBAR]
    found = np.array([point.position_ras_mm for point in result.points])
    assert np.abs(found - discs).max() < 1.0
    assert all(0 < point.confidence <= 1 for point in result.points)
    seen = result.maps["evidence"].volume
    assert seen.array.shape == volume.array.shape
    ras_to_ijk = np.linalg.inv(volume.ijk_to_ras)
    for place in discs:
        i, j, k = np.rint(ras_to_ijk @ [*place, 1])[:3].astype(int)
        assert seen.array[k, j, i] > 0.5
    assert seen.array[:, :, :40].max() == 0
    assert result.measurements[0].value == 7
    assert {m.name: m.value for m in result.measurements}["Length of the chain"] == pytest.approx(
        np.linalg.norm(np.diff(discs, axis=0), axis=1).sum(), abs=2
    )
    assert [row[0] for row in result.tables["discs"].rows] == [DISC_NAMES[number] for number in LUMBAR]
    assert RESEARCH_USE_NOTICE in " ".join(result.warnings)
    assert result.provenance["candidates"] == 7


@pytest.mark.parametrize("axes", list(itertools.permutations(range(3))))
def test_map_and_points_follow_every_stored_orientation(sees, model: ModelFile, axes: tuple[int, ...]):
    discs = spine(LUMBAR, top_mm=-30.0)
    sees(discs, LUMBAR)
    plain = field_of_view(9, 4.0, 300, 250, 1.0)
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = plain.ijk_to_ras[:3, list(axes)], plain.ijk_to_ras[:3, 3]
    stored = replace(plain, array=plain.array.transpose([2 - axes[2 - a] for a in range(3)]), ijk_to_ras=matrix)
    result = label(stored, model)
    assert np.abs([point.position_ras_mm for point in result.points] - discs).max() < 1.0
    seen = result.maps["evidence"].volume.array
    k, j, i = np.unravel_index(seen.argmax(), seen.shape)
    peak = (stored.ijk_to_ras @ [i, j, k, 1])[:3]
    assert np.linalg.norm(discs - peak, axis=1).min() < 2.5


def test_unequal_slice_gaps_keep_the_grid_of_the_source(sees, model: ModelFile):
    discs = spine(LUMBAR, top_mm=-30.0)
    sees(discs, LUMBAR)
    plain = field_of_view(15, 2.0, 300, 250, 1.0)
    keep = [0, 2, 4, 6, 7, 8, 10, 12, 14]
    uneven = Volume(plain.array[keep], plain.ijk_to_ras, slice_origins_ras=plain.origins_ras[keep])
    result = label(uneven, model)
    assert np.abs([point.position_ras_mm for point in result.points] - discs).max() < 1.2
    heights = result.maps["evidence"].volume.array.max(axis=(1, 2))
    assert heights[4] == heights.max() > 0.6  # x = 0
    assert np.allclose(heights, heights[::-1])


def test_result_can_be_written_and_read(sees, model: ModelFile, tmp_path: Path):
    discs = spine(LUMBAR, top_mm=-30.0)
    sees(discs, LUMBAR)
    write_result(label(field_of_view(9, 4.0, 300, 250, 1.0), model), tmp_path / "result")
    again = read_result(tmp_path / "result")
    assert [point.name for point in again.points] == [DISC_NAMES[number] for number in LUMBAR]
    assert (tmp_path / "result" / "report.html").is_file()


def test_a_known_end_anchors_the_chain(sees, model: ModelFile):
    discs = spine(LUMBAR, top_mm=-30.0)
    sees(discs, LUMBAR)
    volume = field_of_view(9, 4.0, 300, 250, 1.0)
    assert label(volume, model, lowest="L4/L5").points[-1].name == "L4/L5"
    assert label(volume, model, highest="T10/T11").points[0].name == "T10/T11"
    with pytest.raises(InputError, match="no disc 'Q9'"):
        label(volume, model, lowest="Q9")


def test_one_disc_asks_for_an_anchor(sees, model: ModelFile):
    sees(np.array([[0.0, 0.0, -60.0]]), [None])
    volume = field_of_view(9, 4.0, 150, 150, 1.0)
    result = label(volume, model)
    assert len(result.points) == 1
    assert any("which cannot be counted; say which disc it is" in warning for warning in result.warnings)
    assert label(volume, model, lowest="C4/C5").points[0].name == "C4/C5"


def test_no_spine_in_view_is_told(sees, model: ModelFile):
    sees(np.zeros((0, 3)), [])
    with pytest.raises(InputError, match="no spine in view in the image; choose"):
        label(field_of_view(9, 4.0, 150, 150, 1.0), model)


def test_axial_second_image_is_refused_too(sees, model: ModelFile):
    sees(spine(LUMBAR, top_mm=-30.0), LUMBAR)
    good = field_of_view(9, 4.0, 300, 250, 1.0)
    axial = Volume(np.arange(10 * 64 * 64).reshape(10, 64, 64) % 97, np.diag([1.0, 1.0, 4.0, 1.0]))
    with pytest.raises(GeometryError, match="acquired axially"):
        label(good, model, second=axial)


def test_second_contrast_in_another_place_is_left_out(model: ModelFile, monkeypatch):
    discs = spine(LUMBAR, top_mm=-30.0)
    first, second = field_of_view(9, 4.0, 300, 250, 1.0), field_of_view(9, 4.0, 301, 250, 1.0)

    def images(volume, shown):
        return images_of(volume, discs if volume is first else discs + np.array([0, 25, 14]), LUMBAR, shown)

    monkeypatch.setattr(pipeline, "sagittal_images", images)
    monkeypatch.setattr(pipeline, "disc_predictor", lambda *_: oracle())
    result = label(first, model, second=second)
    assert any("second image" in warning for warning in result.warnings)
    assert len(result.points) == len(LUMBAR)


def candidate(z_mm: float, strength: float = 0.8, level: int = 0) -> Candidate:
    evidence = np.zeros(DISC_COUNT)
    evidence[level] = strength
    return Candidate(np.array([0.0, 0.0, z_mm]), strength, evidence)


def test_two_contrasts_strengthen_what_both_show():
    first = [candidate(0, 0.9, 5), candidate(-20, 0.6, 6), candidate(-60, 0.9)]
    second = [candidate(-2, 0.3, 5), candidate(-40, 0.8)]
    both, common = merged(first, second, lambda point: True, lambda point: point[2] > -50)
    assert [round(float(one.position_ras_mm[2]), 2) for one in both] == [-0.5, -20, -40, -60]
    assert both[0].strength == 0.9
    assert both[0].evidence[5] == pytest.approx(0.6)
    assert [round(one.strength, 2) for one in both[1:]] == [0.42, 0.56, 0.9]  # the last is out of the second's view
    assert common == pytest.approx(0.5)


def test_cancel_is_obeyed(model: ModelFile):
    with pytest.raises(CancelledError):
        pipeline.run(
            {"mr": field_of_view(9, 4.0, 150, 150, 1.0)}, model, DiscOptions(), Progress(cancelled=lambda: True)
        )


# -- through every door, with a real network that has learnt nothing -------------------------------------------


def test_run_case_walks_the_whole_line(model: ModelFile, tmp_path: Path):
    """An untrained network finds nothing, or anything; both end in one sentence or in a readable folder."""
    write_volume(field_of_view(7, 4.0, 120, 100, 1.0), tmp_path / "spine.nii.gz")
    try:
        run_case("discs", {"mr": tmp_path / "spine.nii.gz"}, model.path, {}, "cpu", tmp_path / "out")
    except InputError as error:
        assert "no spine in view" in str(error) or "header" in str(error)
    else:
        assert read_result(tmp_path / "out").task == "discs"


def test_original_checkpoint_becomes_a_model_that_runs(tmp_path: Path):
    original, x = Original(width=16), torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    wanted = original(x)[-1]
    torch.save(original.checkpoint(), tmp_path / "model_t2_att_2")
    made = import_checkpoint(
        tmp_path / "model_t2_att_2", tmp_path / "imported.safetensors", "StackedHourglass", {"width": 16}
    )
    assert "C2/C3 to T5/T6" in made["notice"]
    model = load_model(tmp_path / "imported.safetensors", "discs")
    assert SagittalPreprocessing.from_dict(model.header["preprocessing"]) == PUBLISHED
    with torch.inference_mode():
        assert torch.allclose(build_network(model, NETWORKS)(x)[-1], wanted, atol=1e-4)
    found = locate(field_of_view(5, 4.0, 120, 100, 1.0), model, "cpu", "float32")
    assert all(not one.evidence[0] and not one.evidence[12:].any() for one in found)  # C1/C2 and below T5/T6


def test_command_line_refuses_two_time_points(model: ModelFile, tmp_path: Path):
    volume = field_of_view(7, 4.0, 120, 100, 1.0)
    double = replace(volume, array=np.stack([volume.array, volume.array]), frame_times_s=np.array([0.0, 60.0]))
    write_volume(double, tmp_path / "two.nii.gz")
    arguments = ["discs", str(tmp_path / "two.nii.gz"), str(tmp_path / "out"), "--model", str(model.path), "--json"]
    outcome = CliRunner().invoke(make_app(), arguments)
    assert outcome.exit_code != 0
    message = json.loads(outcome.stdout)["message"]
    assert "2 time" in message and message.count(". ") == 0
    assert not (tmp_path / "out").exists()


def test_model_that_means_other_discs_is_refused(tmp_path: Path, model: ModelFile):
    wrong = header(preprocessing={**SagittalPreprocessing().to_dict(), "levels": 30})
    write_model(tmp_path / "wrong.safetensors", model.weights(), wrong)
    with pytest.raises(ModelError, match="impossible values"):
        label(field_of_view(7, 4.0, 120, 100, 1.0), load_model(tmp_path / "wrong.safetensors"))


def test_options_are_checked():
    with pytest.raises(InputError, match="precision"):
        DiscOptions(precision="half")
    with pytest.raises(InputError, match="threshold"):
        DiscOptions(threshold=1.0)
    assert get_task("discs").title == "Label discs"
