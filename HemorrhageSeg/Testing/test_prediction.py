"""Every kind of model through the pipeline: volume networks, SLEX-Net, the uncertainty family, ensembles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pipeline_phantom import SPHERE_ML, Bright, head, header, unequal_gaps
from torch import nn

from HemorrhageSegLib import networks
from HemorrhageSegLib.task import TASK, HemorrhageOptions
from NeuraxisLib.errors import InputError, ModelError
from NeuraxisLib.models import ModelFile, load_model, write_model
from NeuraxisLib.result import Result
from NeuraxisLib.result_folder import read_result, write_result
from NeuraxisLib.task import Progress
from NeuraxisLib.uncertainty import binary_entropy
from NeuraxisLib.uncertainty_methods import METHODS, path_uncertainty
from NeuraxisLib.volume import Volume

#: A volume network that sees -100 to 300 HU as -1 to 1, as the phantom's slice network does.
WINDOWS = {
    "kind": "volume",
    "spacing_mm": [1.2, 1.2, 4.0],
    "clip_hu": [-100.0, 300.0],
    "mean_hu": 100.0,
    "std_hu": 200.0,
    "patch": [64, 64, 16],
}


class Bright3D(Bright):
    """The same threshold for volumes (x, y, z)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        near_bone = nn.functional.max_pool3d(x, (7, 7, 1), stride=1, padding=(3, 3, 0)) > 0.15
        return (x.clamp(max=-0.1) + 0.225) * 160 + self.anchor - 1000 * near_bone


class Doubtful(Bright):
    """A threshold behind dropout and BatchNorm that change nothing in a plain prediction."""

    def __init__(self):
        super().__init__()
        self.norm, self.drop = nn.BatchNorm2d(1, affine=False), nn.Dropout2d(0.3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mixed = self.norm(x)
        return super().forward(x) + 40 * (mixed - x) + 3 * (self.drop(torch.ones_like(x[:, :, :1, :1])) - 1)


@pytest.fixture(autouse=True)
def known_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(networks.NETWORKS, "Bright", "pipeline_phantom:Bright")
    for kind in (Bright3D, Doubtful):
        monkeypatch.setitem(networks.NETWORKS, kind.__name__, f"{__name__}:{kind.__name__}")


@pytest.fixture(scope="module")
def coarse() -> Volume:
    return head(spacing=(2.2, 2.2, 6.0))


def written(path: Path, network: nn.Module, name: str, arguments: dict | None = None, **changes) -> ModelFile:
    architecture = {"name": name, "arguments": arguments or {}}
    write_model(path, network.state_dict(), header(name=path.stem, architecture=architecture, **changes))
    return load_model(path)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModelFile]:
    from HemorrhageSegLib.networks.slexnet import SLEXNet

    folder = tmp_path_factory.mktemp("models")
    small = {**header()["preprocessing"], "size": 96}
    stack = [{"offset": offset, "low_hu": 0.0, "high_hu": 80.0} for offset in (-1, 0, 1)]
    torch.manual_seed(1)
    slex = {"base": 4}
    higher = Bright()
    higher.anchor.data -= 6
    return {
        "bright": written(folder / "bright.safetensors", Bright(), "Bright", preprocessing=small),
        "higher": written(folder / "higher.safetensors", higher, "Bright", preprocessing=small),
        "windows": written(folder / "windows.safetensors", Bright3D(), "Bright3D", preprocessing=WINDOWS),
        "doubtful": written(folder / "doubtful.safetensors", Doubtful(), "Doubtful", preprocessing=small),
        "slex": written(
            folder / "slex.safetensors", SLEXNet(**slex), "SLEXNet", slex,
            preprocessing={**small, "channels": stack, "brain_only": True},
            uncertainty={"kind": "slex_paper"},
        ),
    }  # fmt: skip


def process(volume: Volume, model: ModelFile, **options) -> Result:
    options = {"device": "cpu", "precision": "float32", **options}
    return TASK.run({"ct": volume}, model, HemorrhageOptions(**options), Progress())


def probability(result: Result) -> np.ndarray:
    return result.maps["probability"].volume.array


def uncertainty(result: Result) -> np.ndarray:
    return result.maps["entropy"].volume.array


# -- volume networks ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"tilt_deg": 20.0}, {"spacing": (1.2, 1.2, 2.7)}])
def test_a_volume_network_measures_the_sphere(models, options) -> None:
    volume = head(**options)
    result = process(volume, models["windows"])
    assert result.measurements[0].value == pytest.approx(SPHERE_ML, rel=0.03)
    assert result.labels.array.shape == volume.array.shape
    facts = result.provenance["grid"]
    assert facts["spacing_mm"] == [1.2, 1.2, 4.0] and facts["windows"] < 60


def test_unequal_gaps_leave_a_volume_network_s_measure(models) -> None:
    assert process(unequal_gaps(), models["windows"]).measurements[0].value == pytest.approx(SPHERE_ML, rel=0.04)


def test_what_a_volume_network_needs_is_refused_elsewhere(coarse, models, tmp_path) -> None:
    odd = written(tmp_path / "odd.safetensors", Bright(), "Bright", preprocessing={"kind": "points"})
    with pytest.raises(ModelError, match="preprocessing of the kind 'points', which this version does not have"):
        process(coarse, odd)
    with pytest.raises(InputError, match="'legacy_stretched_sheet' is made for another kind of model"):
        process(coarse, models["windows"], legacy_stretched_sheet=True)


# -- SLEX-Net -------------------------------------------------------------------------------------------------


def test_the_model_file_says_its_uncertainty(coarse, models) -> None:
    result = process(coarse, models["slex"])
    shown = result.maps["entropy"]
    assert shown.value_range == (0.0, pytest.approx(np.exp(-1)))
    assert shown.volume.unit == "nats"
    assert shown.volume.array.max() <= np.exp(-1) + 1e-3
    assert shown.note == METHODS["slex_paper"].description
    assert result.provenance["uncertainty"]["method"] == "slex_paper"
    assert result.provenance["seed"] is None


def test_both_forms_are_of_the_same_paths(coarse, models) -> None:
    """Every voxel's pair of values lies on the curve that one probability draws through both formulas."""
    paper, entropy = (process(coarse, models["slex"], uncertainty=name) for name in ("slex_paper", "slex_entropy"))
    np.testing.assert_array_equal(probability(paper), probability(entropy))
    assert paper.key_slices == entropy.key_slices
    p = np.linspace(0, 1, 4001)
    curve = np.stack([path_uncertainty(p), binary_entropy(p)])
    found = np.stack([uncertainty(paper), uncertainty(entropy)])[:, uncertainty(paper) > 0]
    assert found.shape[1] > 1000
    chosen = found[:, np.random.default_rng(0).choice(found.shape[1], 300)]
    assert np.abs(chosen[:, :, None] - curve[:, None]).max(axis=0).min(axis=1).max() < 2e-3
    answer = process(coarse, models["slex"], uncertainty="entropy")
    np.testing.assert_array_equal(probability(answer), probability(paper))
    assert np.abs(uncertainty(answer) - uncertainty(entropy)).max() > 0.01  # the fused answer is not their mean


def test_the_paths_need_a_slex_net(coarse, models) -> None:
    with pytest.raises(ModelError, match="'slex_paper' needs the three paths of a SLEX-Net.*'bright' is a Bright"):
        process(coarse, models["bright"], uncertainty="slex_paper")


# -- several passes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["mc_dropout", "mc_batchnorm", "tta"])
def test_several_passes_are_repeatable_and_say_so(coarse, models, method) -> None:
    options = {"uncertainty": method, "uncertainty_passes": 3}
    first, again = (process(coarse, models["doubtful"], **options, seed=5) for _ in range(2))
    np.testing.assert_array_equal(probability(first), probability(again))
    np.testing.assert_array_equal(uncertainty(first), uncertainty(again))
    other = process(coarse, models["doubtful"], **options, seed=6)
    assert np.abs(probability(first) - probability(other)).max() > 0.01
    plain = process(coarse, models["doubtful"])
    assert np.abs(probability(first) - probability(plain)).max() > 0.01
    assert first.provenance["seed"] == 5 and first.provenance["passes"] == 3
    assert first.provenance["uncertainty"]["description"] == METHODS[method].description
    assert first.maps["entropy"].title == METHODS[method].title
    assert first.maps["entropy"].volume.unit == "bits"
    np.testing.assert_allclose(uncertainty(first), binary_entropy(probability(first)), atol=1 / 1024)


def test_passes_are_counted_in_the_progress(coarse, models) -> None:
    seen: list[tuple[float, str]] = []
    options = HemorrhageOptions(device="cpu", uncertainty="tta", uncertainty_passes=3)
    TASK.run({"ct": coarse}, models["bright"], options, Progress(lambda *report: seen.append(report)))
    fractions = [fraction for fraction, _ in seen]
    assert fractions == sorted(fractions)
    assert [stage for stage in dict.fromkeys(stage for _, stage in seen) if "pass" in stage] == [
        f"Finding blood, pass {number} of 3" for number in (1, 2, 3)
    ]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"uncertainty": "mc_dropout"}, "'mc_dropout' needs a network with dropout, and the model 'bright' has none"),
        ({"uncertainty": "mc_batchnorm"}, "'mc_batchnorm' needs a network with BatchNorm"),
        ({"uncertainty": "ensemble"}, "at least two different models"),
        ({"uncertainty": "ensemble", "ensemble": "nowhere"}, "no model 'nowhere'"),
        ({"ensemble": "bright"}, "choose the uncertainty 'ensemble'"),
        ({"uncertainty": "tta", "legacy_batch_statistics": True}, "cannot be combined with the uncertainty 'tta'"),
    ],
)
def test_what_does_not_apply_is_refused_in_a_sentence(coarse, models, options, named) -> None:
    with pytest.raises((ModelError, InputError), match=named) as caught:
        process(coarse, models["bright"], **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "options", [{"uncertainty": "evidential"}, {"uncertainty_passes": 1}, {"uncertainty_passes": 5000}, {"seed": -1}]
)
def test_impossible_options_are_refused(options) -> None:
    with pytest.raises(InputError):
        HemorrhageOptions(**options)


def test_an_unknown_uncertainty_of_a_model_is_refused(coarse, tmp_path) -> None:
    odd = written(tmp_path / "odd.safetensors", Bright(), "Bright", uncertainty={"kind": "evidential"})
    with pytest.raises(ModelError, match="asks for the uncertainty 'evidential'"):
        process(coarse, odd)


def test_methods_without_weights_have_their_entropy_alone(coarse) -> None:
    model = load_model(TASK.resources / "Models" / "hemorrhage-fuzzy-c-means.safetensors")
    with pytest.raises(ModelError, match="'tta' needs a network"):
        process(coarse, model, uncertainty="tta")


# -- ensembles ------------------------------------------------------------------------------------------------


def test_an_ensemble_is_the_mean_of_its_members(coarse, models) -> None:
    alone = [process(coarse, models[name], min_component_ml=0.0) for name in ("bright", "higher", "windows")]
    further = ", ".join(str(models[name].path) for name in ("higher", "windows"))
    options = {"uncertainty": "ensemble", "ensemble": further, "min_component_ml": 0.0}
    result = process(coarse, models["bright"], **options)
    expected = np.mean([probability(each) for each in alone], axis=0)
    clear = np.abs(expected - probability(result)) < 2e-3  # the edge of bone is judged after averaging
    assert clear.mean() > 0.999
    np.testing.assert_allclose(uncertainty(result), binary_entropy(probability(result)), atol=1 / 1024)
    facts = result.provenance
    assert [member["name"] for member in facts["members"]] == ["bright", "higher", "windows"]
    assert facts["options"]["ensemble"] == "higher, windows"
    assert str(models["higher"].path.parent) not in repr(facts)


def test_the_same_model_twice_is_no_ensemble(coarse, models) -> None:
    with pytest.raises(ModelError, match="at least two different models"):
        process(coarse, models["bright"], uncertainty="ensemble", ensemble=str(models["bright"].path))


def test_a_member_of_another_task_is_refused(coarse, models, tmp_path) -> None:
    stranger = written(tmp_path / "stranger.safetensors", Bright(), "Bright", task="stroke")
    with pytest.raises(ModelError, match="'stranger' is made for the task 'stroke', not 'hemorrhage'"):
        process(coarse, models["bright"], uncertainty="ensemble", ensemble=str(stranger.path))


# -- on disk --------------------------------------------------------------------------------------------------


def test_the_result_folder_keeps_what_the_map_is(coarse, models, tmp_path) -> None:
    result = process(coarse, models["slex"])
    write_result(result, tmp_path / "result")
    back = read_result(tmp_path / "result", coarse).maps["entropy"]
    original = result.maps["entropy"]
    assert (back.title, back.note, back.volume.unit) == (original.title, original.note, "nats")
    assert back.value_range == pytest.approx(original.value_range)
