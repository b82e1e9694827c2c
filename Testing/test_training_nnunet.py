"""nnU-Net by its own code: exported, planned, trained, run from a model file; plans that ask for more are refused."""

from __future__ import annotations

import copy
import csv
import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from NeuraxisLib.errors import CancelledError, DependencyError, InputError, ModelError
from NeuraxisLib.files import read_volume
from NeuraxisLib.models import load_model
from NeuraxisLib.nnunet_inference import check_plan, load_nnunet, stack_of
from NeuraxisLib.task import Progress
from NeuraxisLib.volume import Volume
from Training import nnunet
from Training.nnunet_data import Workplace, export_store
from Training.nnunet_import import import_trained
from Training.store import IGNORED, Store, StoredCase
from Training.store_writer import StoreWriter

#: nnU-Net's training, cut short: its own trainers of few epochs need packages that its usual one does not.
TINY = """
from nnunetv2.run.run_training import run_training_entry
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

def fixed(value):
    return property(lambda self: value, lambda self, given: None)

for name, value in dict(num_epochs=1, num_iterations_per_epoch=2, num_val_iterations_per_epoch=1).items():
    setattr(nnUNetTrainer, name, fixed(value))
"""


def case(number: int, split: str, seed: int = 0, **changes) -> StoredCase:
    """A dark cube in noise, stored with its slices from the top down, in which a bright ball is marked."""
    rng = np.random.default_rng(seed + number)
    hu = rng.normal(35, 4, (6, 48, 40))
    k, j, i = np.indices(hu.shape)
    ball = (k - 3) ** 2 * 9 + (j - 20 - number) ** 2 + (i - 18) ** 2 < 49
    hu[ball] += 35
    matrix = np.array([[-0.8, 0, 0, 10], [0, -0.8, 0, 20], [0, 0, -5.0, 30], [0, 0, 0, 1]])
    image = Volume(np.rint(hu).astype(np.int16), matrix, "HU")
    return StoredCase(f"patient-{number}", f"p{number}", "", split, image, ball.astype(np.uint8), **changes)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("store") / "cases.h5"
    with StoreWriter(path) as writer:
        for number, split in enumerate(("train", "train", "val")):
            writer.add(case(number, split))
        writer.add(replace(case(9, "train"), truth=None))
    return path


@pytest.fixture(scope="module")
def exported(store: Path, tmp_path_factory) -> Workplace:
    place = Workplace(tmp_path_factory.mktemp("work"), 7)
    arguments = ["export", str(store), str(place.folder), "--dataset", "7"]
    assert nnunet.main(arguments) == 0
    return place


# -- export ---------------------------------------------------------------------------------------------------------


def test_outlined_cases_are_exported_with_their_folds(exported: Workplace) -> None:
    description = json.loads((exported.raw / "dataset.json").read_text())
    assert description["channel_names"] == {"0": "CT"} and description["numTraining"] == 3
    assert description["labels"] == {"background": 0, "Hemorrhage": 1}
    with open(exported.raw / "cases.csv", newline="") as file:
        names = {row["case"]: row["name"] for row in csv.DictReader(file)}
    assert list(names) == [f"patient-{number}" for number in range(3)]
    folds = json.loads((exported.preprocessed / "splits_final.json").read_text())
    assert folds == [{"train": ["case_0001", "case_0002"], "val": ["case_0003"]}]
    files = [path.name for path in exported.raw.rglob("*") if path.is_file()]
    assert len(files) == 3 + 3 + 2 and not any("patient" in name for name in files)


def test_image_and_label_are_the_stacks_that_the_network_will_see(exported: Workplace) -> None:
    wanted = case(2, "val")
    axial, order = wanted.image.axial()
    image = read_volume(exported.raw / "imagesTr" / "case_0003_0000.nrrd")
    label = read_volume(exported.raw / "labelsTr" / "case_0003.nrrd")
    array, spacing = stack_of(axial)
    assert np.array_equal(image.array, array) and np.array_equal(label.array, order.apply_array(wanted.truth))
    assert spacing == pytest.approx([5.0, 0.8, 0.8]) and image.spacing_mm[::-1] == pytest.approx(spacing)
    assert (image.array[label.array > 0] > 45).all()


def test_unequal_gaps_are_exported_at_equal_ones_and_ignored_voxels_stay_so(tmp_path: Path) -> None:
    made = case(0, "train")
    truth = made.truth.copy()
    truth[5] = IGNORED
    origins = made.image.ijk_to_ras[:3, 3] + np.array([0, 5, 10, 15, 20, 30.0])[:, None] * [0, 0, -1.0]
    image = replace(made.image, slice_origins_ras=origins)
    with StoreWriter(tmp_path / "cases.h5") as writer:
        writer.add(replace(made, image=image, truth=truth))
        writer.add(case(1, "val"))
    place = Workplace(tmp_path / "work")
    with Store(tmp_path / "cases.h5") as opened:
        assert export_store(opened, place, "Bleed", ["train"], ["val"], Progress()) == 2
    label = read_volume(place.raw / "labelsTr" / "case_0001.nrrd")
    assert label.slice_count == 7 and label.spacing_mm[2] == pytest.approx(5)
    assert set(np.unique(label.array)) == {0, 1, 2} and (label.array[0] == 2).all()
    assert json.loads((place.raw / "dataset.json").read_text())["labels"]["ignore"] == 2


def test_splits_named_as_folds_make_a_cross_validation(tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "cases.h5") as writer:
        for number in range(3):
            writer.add(case(number, f"fold{number}"))
    place = Workplace(tmp_path / "work")
    with Store(tmp_path / "cases.h5") as opened:
        export_store(opened, place, "Bleed", ["fold0", "fold1", "fold2"], [], Progress())
    folds = json.loads((place.preprocessed / "splits_final.json").read_text())
    assert [fold["val"] for fold in folds] == [["case_0001"], ["case_0002"], ["case_0003"]]
    assert folds[1]["train"] == ["case_0001", "case_0003"]


def test_faults_of_an_export_are_told(store: Path, exported: Workplace, tmp_path: Path, capsys) -> None:
    assert nnunet.main(["export", str(store), str(exported.folder), "--dataset", "7"]) == 1
    assert "holds a data set already; choose another" in capsys.readouterr().err
    assert nnunet.main(["export", str(store), str(tmp_path), "--val-split", "test"]) == 1
    assert "has no split 'test'" in capsys.readouterr().err
    assert nnunet.main(["plan", str(tmp_path), "--dataset", "1000"]) == 1
    assert "from 1 to 999" in capsys.readouterr().err
    with StoreWriter(tmp_path / "mixed.h5") as writer:
        writer.add(case(0, "train"))
        grey = case(1, "val")
        writer.add(replace(grey, image=replace(grey.image, unit="grey")))
    with Store(tmp_path / "mixed.h5") as opened, pytest.raises(InputError, match="mixes images in HU and grey"):
        export_store(opened, Workplace(tmp_path / "mixed"), "Bleed", ["train"], ["val"], Progress())


def test_an_interrupted_export_is_no_data_set(store: Path, tmp_path: Path) -> None:
    place, asked = Workplace(tmp_path / "work"), iter(range(99))
    with Store(store) as opened, pytest.raises(CancelledError):
        export_store(opened, place, "Bleed", ["train"], ["val"], Progress(cancelled=lambda: next(asked) == 2))
    assert not (place.raw / "dataset.json").exists()


# -- plans ----------------------------------------------------------------------------------------------------------


def plan() -> dict:
    """The arguments of a small 2-D plan."""
    keywords = {
        "n_stages": 3, "features_per_stage": [8, 16, 16], "kernel_sizes": [[3, 3]] * 3,
        "strides": [[1, 1], [2, 2], [2, 2]], "n_conv_per_stage": [1] * 3, "n_conv_per_stage_decoder": [1] * 2,
        "conv_op": "torch.nn.modules.conv.Conv2d", "norm_op": "torch.nn.modules.instancenorm.InstanceNorm2d",
        "nonlin": "torch.nn.LeakyReLU", "dropout_op": None,
    }  # fmt: skip
    resampling = {f"resampling_fn_{what}": "resample_data_or_seg_to_shape" for what in ("data", "seg", "probabilities")}
    return {
        "configuration": {
            **resampling,
            "preprocessor_name": "DefaultPreprocessor",
            "normalization_schemes": ["CTNormalization"],
            "architecture": {
                "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
                "arch_kwargs": keywords,
                "_kw_requires_import": ["conv_op", "norm_op", "nonlin", "dropout_op"],
            },
        },
        "plans": {"label_manager": "LabelManager"},
        "dataset": {"labels": {"background": 0, "Hemorrhage": 1}},
        "mirroring_axes": [0, 1],
        "folds": ["0"],
    }


def test_a_default_plan_is_accepted() -> None:
    check_plan("mine", plan())


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("configuration.architecture.network_class_name", "subprocess.Popen"),
        ("configuration.architecture.arch_kwargs.conv_op", "os.system"),
        ("configuration.architecture._kw_requires_import", ["n_stages"]),
        ("configuration.preprocessor_name", "MyPreprocessor"),
        ("configuration.resampling_fn_data", "my_resampling"),
        ("configuration.normalization_schemes", ["MyNormalization"]),
        ("configuration.previous_stage", "3d_lowres"),
        ("plans.label_manager", "MyManager"),
        ("dataset.labels", {"background": 0, "whole": [1, 2]}),
        ("folds", []),
    ],
)
def test_a_plan_that_names_anything_else_is_refused(place: str, value) -> None:
    arguments = plan()
    *path, last = place.split(".")
    inside = arguments
    for key in path:
        inside = inside[key]
    inside[last] = value
    with pytest.raises(ModelError, match="model 'mine' asks for"):
        check_plan("mine", arguments)


@pytest.mark.parametrize("missing", ["configuration", "plans", "dataset", "folds"])
def test_an_incomplete_plan_is_refused(missing: str) -> None:
    arguments = copy.deepcopy(plan())
    del arguments[missing]
    with pytest.raises(ModelError, match=f"incomplete .*{missing}"):
        check_plan("mine", arguments)


def test_without_nnunetv2_it_says_what_to_install(exported: Workplace, monkeypatch, capsys) -> None:
    monkeypatch.setattr("NeuraxisLib.nnunet_inference.import_module", raising)
    assert nnunet.main(["plan", str(exported.folder), "--dataset", "7"]) == 1
    assert "needs the package nnunetv2 (nnunetv2 is missing); install it" in capsys.readouterr().err


def raising(name: str):
    raise ImportError(name="nnunetv2")


# -- with nnU-Net itself --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(exported: Workplace, tmp_path_factory) -> Workplace:
    """Planned by nnU-Net, and trained for two steps of its own training."""
    pytest.importorskip("nnunetv2", reason="nnunetv2 is not installed")
    folder = tmp_path_factory.mktemp("trainer")
    (folder / "tiny_nnunet.py").write_text(TINY)
    few = {"nnUNet_compile": "f", "nnUNet_def_n_proc": "1", "OMP_NUM_THREADS": "1"}
    before, entry = dict(os.environ), nnunet.TRAIN
    os.environ.update(few, PYTHONPATH=os.pathsep.join([str(folder), *sys.path]))
    work = [str(exported.folder), "--dataset", "7", "--configuration", "2d"]
    try:
        assert nnunet.main(["plan", *work, "--workers", "1"]) == 0
        os.environ.update(nnUNet_n_proc_DA="0")  # its planner cannot live with that, its training can
        nnunet.TRAIN = ("tiny_nnunet", "run_training_entry")
        assert nnunet.main(["train", *work, "--device", "cpu"]) == 0
    finally:
        nnunet.TRAIN = entry
        os.environ.clear()
        os.environ.update(before)
    return exported


@pytest.fixture(scope="module")
def model(trained: Workplace, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    arguments = ["import", str(trained.folder), str(path), "--dataset", "7", "--configuration", "2d"]
    assert nnunet.main(arguments) == 0
    return path


@pytest.mark.slow
def test_what_was_trained_runs_as_nnunet_itself_runs_it(trained: Workplace, model: Path) -> None:
    """The model file's probabilities are those of nnunetv2's predictor on the trained folder."""
    axial, _ = case(3, "val").image.axial()
    told: list[float] = []
    found = load_nnunet(load_model(model), "cpu").probability(axial, Progress(lambda done, _: told.append(done)))
    assert found.shape == axial.array.shape and found.dtype == np.float32
    assert np.allclose(found, nnunets_own(trained.trained("2d", "nnUNetTrainer"), axial, "0"), atol=1e-5)
    assert told == sorted(told) and len(told) >= 6 and 0.9 < told[-1] <= 1


def nnunets_own(folder: Path, axial: Volume, *folds: str) -> np.ndarray:
    """What nnunetv2's predictor makes of a scan."""
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(perform_everything_on_device=False, device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(folder), folds)
    array, spacing = stack_of(axial)
    _, expected = predictor.predict_single_npy_array(
        array[None].astype(np.float32), {"spacing": spacing}, save_or_return_probabilities=True
    )
    return expected[1]


@pytest.mark.slow
def test_folds_are_averaged_as_nnunet_averages_them(trained: Workplace, tmp_path: Path) -> None:
    import torch

    folder = tmp_path / "nnUNetTrainer__nnUNetPlans__2d"
    shutil.copytree(trained.trained("2d", "nnUNetTrainer"), folder)
    shutil.copytree(folder / "fold_0", folder / "fold_1")
    changed = torch.load(folder / "fold_1" / "checkpoint_final.pth", weights_only=False)  # our own file
    for tensor in {value.data_ptr(): value for value in changed["network_weights"].values()}.values():
        tensor.mul_(0.7)
    torch.save(changed, folder / "fold_1" / "checkpoint_final.pth")
    path, card = tmp_path / "both.safetensors", {"name": "both", "title": "", "licence": "", "notice": ""}
    import_trained(folder, path, "hemorrhage", ["0", "1"], **card)
    axial, _ = case(3, "val").image.axial()
    network = load_nnunet(load_model(path), "cpu")
    both = [network.probability(axial, Progress()) for _ in range(2)]
    expected = nnunets_own(folder, axial, "0", "1")
    assert np.allclose(both[0], expected, atol=1e-5) and np.array_equal(*both)
    assert np.abs(expected - nnunets_own(folder, axial, "0")).max() > 1e-3


@pytest.mark.slow
def test_running_cancels_at_every_window(model: Path) -> None:
    axial, _ = case(3, "val").image.axial()
    asked = iter(range(99))
    with pytest.raises(CancelledError):
        load_nnunet(load_model(model), "cpu").probability(axial, Progress(cancelled=lambda: next(asked) == 2))


@pytest.mark.slow
def test_unequal_gaps_come_back_to_their_slices(model: Path) -> None:
    volume, _ = case(3, "val").image.axial()
    heights = np.array([0, 5, 10, 15, 20, 30.0])
    uneven = replace(volume, slice_origins_ras=volume.origins_ras[0] + heights[:, None] * volume.normal_ras)
    found = load_nnunet(load_model(model), "cpu").probability(uneven, Progress())
    assert found.shape == uneven.array.shape and found.min() >= 0 and found.max() <= 1


@pytest.mark.slow
def test_the_card_holds_no_path_and_no_case(model: Path, trained: Workplace) -> None:
    header = load_model(model, "hemorrhage").header
    text = json.dumps(header)
    assert "patient" not in text and "case_0" not in text and str(trained.folder) not in text
    assert header["training"] == {
        "trainer": "nnUNetTrainer",
        "configuration": "2d",
        "epochs": 1,
        "data": "3 scans of the trainer's own data set",
    }
    assert header["labels"] == {"1": "Hemorrhage"} and "research use only" in header["notice"]


@pytest.mark.slow
def test_a_checkpoint_that_would_run_code_is_refused(trained: Workplace, tmp_path: Path) -> None:
    import torch

    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'ran'}",)

    folder = tmp_path / "nnUNetTrainer__nnUNetPlans__2d"
    source = trained.trained("2d", "nnUNetTrainer")
    (folder / "fold_0").mkdir(parents=True)
    for name in ("plans.json", "dataset.json"):
        shutil.copy(source / name, folder / name)
    torch.save({"network_weights": {}, "logging": Evil()}, folder / "fold_0" / "checkpoint_final.pth")
    with pytest.raises(ModelError, match="holds more than tensors"):
        import_trained(folder, tmp_path / "evil.safetensors", "hemorrhage", name="e", title="", licence="", notice="")
    assert not (tmp_path / "ran").exists() and not (tmp_path / "evil.safetensors").exists()
    with pytest.raises(InputError, match="no 'checkpoint_final.pth' in 'fold_1'"):
        import_trained(
            folder, tmp_path / "e.safetensors", "hemorrhage", ["1"], name="", title="", licence="", notice=""
        )


def test_missing_package_is_no_traceback_when_a_model_is_loaded(tmp_path: Path, monkeypatch) -> None:
    from types import SimpleNamespace

    monkeypatch.setattr("NeuraxisLib.nnunet_inference.import_module", raising)
    made = SimpleNamespace(name="mine", header={"architecture": {"arguments": plan()}})
    with pytest.raises(DependencyError, match="install it beside PyTorch"):
        load_nnunet(made, "cpu")


def test_the_pipeline_measures_what_an_nnunet_finds(tmp_path: Path, monkeypatch) -> None:
    """The whole task with a network of which only the map is given: the density at or above 60 HU."""
    from types import SimpleNamespace

    from fault_support import head

    from HemorrhageSegLib.task import TASK, HemorrhageOptions
    from NeuraxisLib.models import write_model

    path = tmp_path / "mine.safetensors"
    texts = {"name": "mine", "title": "", "task": "hemorrhage", "licence": "", "notice": ""}
    rest = {"labels": {"1": "Hemorrhage"}, "threshold": 0.5, "min_component_ml": 0.1, "uncertainty": {}, "training": {}}
    write_model(path, {}, {**texts, **rest, "scores": {}, "preprocessing": {"kind": "nnunet"},
                           "architecture": {"name": "nnUNet", "arguments": plan()}})  # fmt: skip
    made = SimpleNamespace(
        probability=lambda axial, progress: (axial.array >= 60).astype(np.float32), facts={"device": "cpu"}
    )
    monkeypatch.setattr("HemorrhageSegLib.prediction.load_nnunet", lambda model, device: made)
    result = TASK.run({"ct": head()}, load_model(path), HemorrhageOptions(), Progress())
    assert result.provenance["device"] == "cpu" and result.measurements[0].value > 1
    for options, error in (
        (HemorrhageOptions(uncertainty="mc_dropout"), ModelError),
        (HemorrhageOptions(legacy_stretched_sheet=True), InputError),
    ):
        with pytest.raises(error, match="mine"):
            TASK.run({"ct": head()}, load_model(path), options, Progress())
