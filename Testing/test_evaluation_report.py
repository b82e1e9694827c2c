"""The evaluation as a user runs it: command line in, a folder with tables, plots, pictures and a report out."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import evaluation_cases
import numpy as np
import pytest
from evaluation_cases import GRID, GROUPS, TRUTHS, Known, Scripted, box, case, prediction
from fault_support import entries

from NeuraxisLib.errors import InputError, OutputError
from NeuraxisLib.files import write_volume
from NeuraxisLib.task import Progress
from Training import evaluate
from Training.evaluation.output import file_stem, plain, whole_folder
from Training.evaluation.rules import RULES
from Training.evaluation.tables import as_text

pytest.importorskip("matplotlib")
Picture = pytest.importorskip("PIL.Image")
FILES = {
    "cases.csv", "summary.csv", "summary.json", "differences.csv", "report.html", "table_drunet.csv",
    "table_hemseg.csv", "table_slex.csv", "table_stavanger.csv", "plots/box.svg", "plots/bland_altman.svg",
    "plots/correlation.svg", "plots/reliability.svg", *(f"overlays/{name}.png" for name in TRUTHS),
    *(f"animations/{name}.gif" for name in TRUTHS),
}  # fmt: skip
WRONG = {"small": box(slice(12, 22)), "large": TRUTHS["large"], "clean": box(slice(0, 2))}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Truths and two sets of results: one without fault, one wrong and without a result of the clean scan."""
    folder = tmp_path_factory.mktemp("evaluation")
    evaluation_cases.write_truths(folder / "truths")
    evaluation_cases.write_results(folder / "right", TRUTHS)
    evaluation_cases.write_results(folder / "wrong", {name: WRONG[name] for name in ("small", "large")})
    (folder / "groups.csv").write_text("id,group\n" + "\n".join(f"{k},{v}" for k, v in GROUPS.items()))
    return folder


def run(place: Path, output: Path, *more: str) -> int:
    """The command line on both sets of results."""
    methods = ["--results", f"Right={place / 'right'}", "--results", f"Wrong={place / 'wrong'}"]
    return evaluate.main([*methods, "--truth", str(place / "truths"), "--output", str(output), *more])


@pytest.fixture(scope="module")
def done(place) -> Path:
    """An evaluation of both."""
    assert run(place, place / "done", "--groups", str(place / "groups.csv")) == 3  # one result is missing
    return place / "done"


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


class Page(HTMLParser):
    """Sources, links and text of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.sources, self.links, self.words = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes) -> None:
        found = dict(attributes)
        self.sources += [found[name] for name in ("src", "data", "poster") if found.get(name)]
        self.links += [found["href"]] if "href" in found else []

    def handle_data(self, data) -> None:
        self.words.append(data.strip())


# -- what is written ------------------------------------------------------------------------------------------


def test_the_folder_holds_what_it_says(done) -> None:
    assert {name for name, content in entries(done).items() if content is not None} == FILES
    document = json.loads((done / "summary.json").read_text())
    assert set(document["files"]) | {"summary.json"} == FILES
    assert document["schema"] == "neuraxis-evaluation" and document["rules"]["name"] == "neuraxis"


def test_cases_are_all_there_with_their_numbers(done) -> None:
    found = {(row["method"], row["case"]): row for row in rows(done / "cases.csv")}
    assert set(found) == {(method, name) for method in ("Right", "Wrong") for name in TRUTHS}
    assert float(found["Wrong", "small"]["dice"]) == pytest.approx(0.8)
    assert float(found["Wrong", "small"]["hd95_mm"]) == pytest.approx(2.0)
    assert float(found["Right", "large"]["truth_ml"]) == pytest.approx(2.0)
    assert found["Right", "large"]["band"] == "<5 mL" and found["Right", "large"]["group"] == "SDH"
    assert float(found["Right", "small"]["seconds"]) == 3.5  # the stages of the result, summed
    assert found["Right", "small"]["interval_covers"] == "1.0"
    missing = found["Wrong", "clean"]
    assert missing["status"] == "failed" and "There is no result of 'clean'" in missing["error"]
    assert missing["dice"] == "0.0" and missing["ece"] == ""


def test_summary_holds_means_counts_and_curves(done) -> None:
    document = json.loads((done / "summary.json").read_text())
    every = {s["method"]: s for s in document["summaries"] if s["kind"] == "all"}
    assert every["Right"]["metrics"]["dice"]["mean"] == 1.0
    assert every["Wrong"]["metrics"]["dice"]["mean"] == pytest.approx((0.8 + 1 + 0) / 3)
    assert every["Wrong"]["counts"]["failed"] == 1 and document["failures"][0]["case"] == "clean"
    assert every["Wrong"]["volume"]["n"] == 3
    curve = every["Right"]["calibration_pooled"]["reliability"]
    # Right says 0.9 in the lesion, 0 elsewhere: two filled bins, share 1 and 0
    assert [x for x in curve["share_of_lesion"] if x is not None] == [0.0, 1.0]
    lines = {(r["method"], r["kind"], r["group"], r["metric"]): r for r in rows(done / "summary.csv")}
    assert float(lines["Wrong", "group", "SDH", "dice"]["mean"]) == 1.0
    assert float(lines["Wrong", "all", "", "cases_failed"]["mean"]) == 1
    assert document["methods"]["Right"]["model"] == "tested"


def test_tables_of_the_papers(done) -> None:
    drunet = rows(done / "table_drunet.csv")
    assert [(r["Set"], r["Method"]) for r in drunet[:2]] == [("all", "Right"), ("all", "Wrong")]
    assert drunet[0]["Dice"] == "1.000±0.000" and drunet[1]["Dice"] == f"0.600±{np.std([0.8, 1, 0], ddof=1):.3f}"
    hemseg = rows(done / "table_hemseg.csv")
    assert hemseg[0]["Dice [%]"] == "100.00 [100.00, 100.00]" and hemseg[1]["Dice [%]"].startswith("60.00 [")
    assert rows(done / "table_slex.csv")[0]["Dice"] == "1.000±0.000"


def test_the_report_stands_alone(done) -> None:
    text = (done / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert len(page.sources) == 4 + len(TRUTHS)  # plots and overlays
    assert all(source.startswith("data:image/") for source in page.sources)
    assert sorted(page.links) == sorted(f"animations/{name}.gif" for name in TRUTHS)
    assert "<script" not in text and not re.search(r"(?:src|href)=.?https?:", text) and "@import" not in text
    words = " ".join(page.words)
    assert "1 results are missing or failed" in words and "There is no result of 'clean'" in words
    assert "3 of 3 cases name no searched region" in words
    for sentence in RULES["neuraxis"].words:
        assert sentence in words
    assert str(done.parent) not in text


def test_the_report_escapes_what_it_is_told(tmp_path) -> None:
    hostile = Scripted("<b>&", {"small": InputError("<script>alert(1)</script>"), "large": TRUTHS["large"]})
    evaluate.write_evaluation(tmp_path / "out", Known(ids=["small", "large"]), [hostile], RULES["neuraxis"], Progress())
    text = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "<script>" not in text and "&lt;script&gt;" in text and "&lt;b&gt;&amp;" in text


def test_words_from_outside_never_run_in_a_spreadsheet(tmp_path) -> None:
    hostile = Scripted("=1+1", dict(TRUTHS))
    evaluate.write_evaluation(tmp_path / "out", Known(), [hostile], RULES["neuraxis"], Progress(), pictures=False)
    assert rows(tmp_path / "out" / "cases.csv")[0]["method"] == "'=1+1"


def test_pictures_show_truth_red_and_prediction_blue(done) -> None:
    overlay = np.asarray(Picture.open(done / "overlays" / "small.png").convert("RGB")).astype(int)
    red, blue = (overlay[..., 0] - overlay[..., 2] > 60), (overlay[..., 2] - overlay[..., 0] > 60)
    width = (overlay.shape[1] - 3) // 2
    right, wrong = slice(0, width), slice(width + 3, None)
    assert red[:, wrong].sum() > 50 and blue[:, wrong].sum() > 50  # 2 of 10 rows each way
    animation = Picture.open(done / "animations" / "small.gif")
    assert animation.n_frames == 4 and animation.info["duration"] == 500 and animation.info["loop"] == 0
    assert animation.width == pytest.approx(4 * width, abs=12)  # image | truth | two predictions
    animation.seek(1)
    frame = np.asarray(animation.convert("RGB")).astype(int)
    panels = [frame[:, start : start + width] for start in range(0, 4 * width, width + 3)]
    reds, blues = zip(*(((p[..., 0] - p[..., 2] > 60).sum(), (p[..., 2] - p[..., 0] > 60).sum()) for p in panels))
    assert reds[0] == blues[0] == 0 and reds[1] > 500 and blues[1] == 0 and blues[2] > 500 and reds[2] == 0
    assert blue[:, right].sum() < blue[:, wrong].sum()


def test_plots_have_a_mark_for_every_case(done) -> None:
    correlation = (done / "plots" / "correlation.svg").read_text()
    # dots are drawn as <use>; failed cases as crosses, also <use>, in their own group
    assert correlation.count("<use") > 2 * len(TRUTHS)
    assert correlation.startswith("<?xml") and "<!-- Wrong" in correlation


def test_the_same_input_gives_the_same_numbers(place, done, tmp_path) -> None:
    run(place, tmp_path / "again", "--groups", str(place / "groups.csv"), "--no-pictures")
    for name in ("cases.csv", "summary.csv", "differences.csv", "plots/box.svg"):
        assert (tmp_path / "again" / name).read_bytes() == (done / name).read_bytes()


# -- models and other inputs ----------------------------------------------------------------------------------


def test_models_run_as_the_task_runs_them(model, scan, tmp_path) -> None:
    """Through the task itself, from a store; the kept result folders give the same numbers again."""
    pytest.importorskip("h5py")
    from NeuraxisLib.files import read_volume
    from Training.store import StoredCase
    from Training.store_writer import StoreWriter

    volume = read_volume(scan)
    truth = np.zeros(volume.array.shape, np.uint8)
    truth[8:10, 25:35, 25:35] = 1
    with StoreWriter(tmp_path / "cases.h5") as writer:
        for name, split in (("one", "test"), ("two", "train")):
            writer.add(StoredCase(name, name, "any", split, volume.like(volume.array, "HU"), truth, truth > 5))
    arguments = ["--store", str(tmp_path / "cases.h5"), "--split", "test", "--no-pictures", "--device", "cpu"]
    models = ["--model", f"A={model},threshold=0.4", "--model", f"B={model},legacy-mask-threshold=true"]
    kept = str(tmp_path / "kept")
    assert evaluate.main([*models, *arguments, "--output", str(tmp_path / "first"), "--keep", kept]) == 0
    found = rows(tmp_path / "first" / "cases.csv")
    assert [(r["method"], r["case"], r["status"]) for r in found] == [("A", "one", "judged"), ("B", "one", "judged")]
    assert float(found[1]["predicted_ml"]) >= float(found[0]["predicted_ml"])
    document = json.loads((tmp_path / "first" / "summary.json").read_text())
    assert document["methods"]["A"]["options"] == {"device": "cpu", "threshold": "0.4"}
    assert "Untrained; for tests only." in document["notes"]
    again = [
        "--results",
        f"A={kept}/A",
        "--results",
        f"B={kept}/B",
        *arguments[:4],
        "--output",
        str(tmp_path / "second"),
    ]
    assert evaluate.main(again) == 0
    second = rows(tmp_path / "second" / "cases.csv")
    for ours, theirs in zip(found, second):
        assert {k: v for k, v in ours.items() if k != "seconds"} == {k: v for k, v in theirs.items() if k != "seconds"}


def test_bare_masks_of_other_software_are_judged_too(place, tmp_path) -> None:
    (tmp_path / "masks").mkdir()
    for name, mask in WRONG.items():
        write_volume(GRID.like(mask.astype(np.uint8)), tmp_path / "masks" / f"{name}.nii.gz")
    arguments = ["--results", f"M={tmp_path / 'masks'}", "--truth", str(place / "truths"), "--output"]
    assert evaluate.main([*arguments, str(tmp_path / "out"), "--no-pictures"]) == 0
    found = {row["case"]: row for row in rows(tmp_path / "out" / "cases.csv")}
    assert float(found["small"]["dice"]) == pytest.approx(0.8) and found["clean"]["empty"] == "truth"
    assert found["small"]["ece"] == "" and not (tmp_path / "out" / "plots" / "reliability.svg").exists()


@pytest.mark.parametrize(("values", "fault"), [(0.3, "fractions"), (-40, "negative values")])
def test_images_and_probabilities_are_no_masks(values, fault) -> None:
    from NeuraxisLib.errors import InputError
    from Training.evaluation.cases import as_mask

    array = np.zeros(GRID.array.shape, np.float32)
    assert not as_mask(GRID.like(array), "result", "a").any()
    array[0, 0, :2] = 3
    assert as_mask(GRID.like(array), "result", "a").sum() == 2
    array[1, 1, 1] = values
    with pytest.raises(InputError, match=f"The result of 'a' holds {fault}"):
        as_mask(GRID.like(array), "result", "a")


def test_results_of_several_models_in_one_folder_show_them_all() -> None:
    from Training.evaluation.methods import remember

    facts: dict = {}
    for name in ("a, first", "a, first", "b"):
        remember(facts, {"model": {"name": name, "sha256": "1"}, "uncertainty": {"method": "tta"}})
    assert facts == {"model": ["a, first", "b"], "sha256": "1", "uncertainty": "tta"}


def test_a_result_on_another_grid_is_a_failure(place, tmp_path) -> None:
    (tmp_path / "masks").mkdir()
    moved = GRID.ijk_to_ras.copy()
    moved[0, 3] = 8.0
    for name, matrix in (("small", moved), ("large", GRID.ijk_to_ras)):
        volume = GRID.like(TRUTHS[name].astype(np.uint8))
        write_volume(type(volume)(volume.array, matrix), tmp_path / "masks" / f"{name}.nrrd")
    arguments = ["--results", f"M={tmp_path / 'masks'}", "--truth", str(place / "truths"), "--output"]
    assert evaluate.main([*arguments, str(tmp_path / "out"), "--no-pictures"]) == 3
    found = {row["case"]: row for row in rows(tmp_path / "out" / "cases.csv")}
    assert "lies on another grid" in found["small"]["error"] and found["large"]["dice"] == "1.0"


def test_the_searched_space_of_a_result_serves_all_methods() -> None:
    from Training.evaluation.judge import judge

    class Searching(Scripted):
        def predict(self, case, progress):
            return prediction(TRUTHS[case.id], region=box(slice(0, 40)))

    found = judge(Known(ids=["small"]), [Scripted("A", TRUTHS), Searching("B", {})], RULES["neuraxis"])
    assert [s.calibration.n for s in found.scores] == [800, 800] and found.notes == []


# -- faults ---------------------------------------------------------------------------------------------------


def refusal(arguments: list[str], capsys) -> str:
    """The one sentence of a refused command line."""
    status = evaluate.main(arguments)
    said = [line for line in capsys.readouterr().err.splitlines() if " % " not in line]
    assert status == 1 and len(said) == 1 and said[0].endswith("."), said
    return said[0]


def test_wrong_input_is_refused_in_one_sentence_and_nothing_is_written(place, tmp_path, capsys) -> None:
    right, truth, output = f"R={place / 'right'}", str(place / "truths"), str(tmp_path / "out")
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.csv").write_text("case;group\n")
    for arguments, words in (
        (["--results", right, "--truth", str(tmp_path / "no")], "'no' was not found"),
        (["--results", right, "--truth", str(tmp_path / "empty")], "no case with a truth"),
        (["--results", right, "--truth", truth, "--split", "test"], "leave --split out"),
        (["--results", right, "--truth", truth, "--rules", "hemseg"], "no rules 'hemseg'"),
        (["--results", right, "--truth", truth, "--groups", str(tmp_path / "bad.csv")], "lacks the columns"),
        (["--results", right, "--results", right, "--truth", truth], "Two methods are called 'R'"),
        (["--results", "folder", "--truth", truth], "write NAME=folder"),
        (["--results", f"R={tmp_path / 'empty'}", "--truth", truth], "a result of none of the 3 cases"),
        (["--results", f"R={tmp_path / 'no'}", "--truth", truth], "'no' was not found"),
        (["--model", f"R={tmp_path / 'no.safetensors'}", "--truth", truth], "no.safetensors"),
        (["--model", "R=,thresholds=1", "--truth", truth], "no option 'thresholds'"),
        (["--model", "R=,x", "--truth", truth], "OPTION=VALUE"),
        (["--results", right, "--truth", truth, "--task", "none"], ""),
    ):
        if words:
            assert words in refusal([*arguments, "--output", output], capsys)
            assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.csv", "empty"]


def test_a_command_line_that_cannot_be_read_has_status_2(capsys) -> None:
    assert evaluate.main(["--truth", "x", "--output", "y"]) == 2
    assert "at least one --model or --results" in capsys.readouterr().err


def test_the_script_starts_by_its_file_and_ends_with_its_status(place, tmp_path) -> None:
    script = [
        sys.executable,
        evaluate.__file__,
        "--",
        "--truth",
        str(place / "truths"),
        "--output",
        str(tmp_path / "x"),
    ]
    done = subprocess.run(
        [*script, "--results", f"R={place / 'nowhere'}"], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert (done.returncode, done.stdout) == (1, "") and done.stderr.startswith("The folder 'nowhere' was not found")
    assert tuple(RULES) == evaluate.RULE_NAMES  # spelled out there, so that --help loads nothing heavy


def test_a_folder_with_something_else_is_left_alone(place, tmp_path, capsys) -> None:
    output = tmp_path / "mine"
    output.mkdir()
    (output / "notes.txt").write_text("mine")
    arguments = ["--results", f"R={place / 'right'}", "--truth", str(place / "truths"), "--output", str(output)]
    assert "'notes.txt', which is not of an earlier evaluation" in refusal(arguments, capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"] and len(list(output.iterdir())) == 1


def test_an_earlier_evaluation_is_replaced_whole_or_stays(tmp_path) -> None:
    known, output = Known(ids=["small"]), tmp_path / "out"
    good = Scripted("A", TRUTHS)
    evaluate.write_evaluation(output, known, [good], RULES["neuraxis"], Progress())
    before = entries(tmp_path)

    class Stops(Scripted):
        def predict(self, case, progress):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate.write_evaluation(output, known, [Stops("B", {})], RULES["neuraxis"], Progress())
    assert entries(tmp_path) == before
    evaluate.write_evaluation(output, known, [good], RULES["legacy_drunet"], Progress(), pictures=False)
    assert (output / "slices.csv").exists() and not (output / "overlays").exists()
    (output / "added.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"added\.txt"):
        evaluate.write_evaluation(output, known, [good], RULES["neuraxis"], Progress())


def test_what_a_killed_run_left_is_removed(tmp_path) -> None:
    left = tmp_path / ".out.999999999.partial"
    left.mkdir()
    with whole_folder(tmp_path / "out") as folder:
        (folder / "x").write_text("x")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_no_case_to_judge_is_an_error(tmp_path) -> None:
    with pytest.raises(InputError, match=r"No case of 'known' could be judged; the first says: .* is damaged"):
        evaluate.write_evaluation(
            tmp_path / "out", Known(ids=["broken"]), [Scripted("A", {})], RULES["neuraxis"], Progress()
        )
    assert list(tmp_path.iterdir()) == []


# -- small things ---------------------------------------------------------------------------------------------


def test_names_become_file_names() -> None:
    assert file_stem("a/b c") == "a_b_c" and file_stem("../x") == "_x" and file_stem("") == "case"
    assert file_stem("a b", {"a_b"}) == "a_b_2"


def test_numbers_that_json_lacks_have_words() -> None:
    assert plain({"a": math.nan, "b": [math.inf, np.float32(1.5)]}) == {"a": None, "b": ["inf", 1.5]}


def test_tables_are_readable_in_a_terminal() -> None:
    from NeuraxisLib.result import Table

    text = as_text(Table("Title", (("Method", ""), ("HD", "mm")), (("long name", "1.0"), ("x", "12.25"))))
    assert text.splitlines() == ["Title", "Method     HD [mm]", "long name      1.0", "x            12.25"]


def test_cases_without_an_image_are_drawn_as_masks() -> None:
    from Training.evaluation.pictures import draw_case

    made = draw_case(case("small", image=None), {"A": prediction(WRONG["small"]), "B": None})
    assert made.slice_number == 3
    picture = np.asarray(Picture.open(io.BytesIO(made.overlay_png)).convert("RGB")).astype(int)
    assert (picture[..., 0] - picture[..., 2] > 60).any()
