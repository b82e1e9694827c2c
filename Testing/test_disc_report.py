"""The evaluation of discs as a user runs it: a store and results in, tables, pictures and a page out."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from NeuraxisLib.result import Landmark, Result
from NeuraxisLib.result_folder import write_result
from NeuraxisLib.volume import Volume
from SpineDiscLabelLib.discs import DISC_NAMES
from Training import evaluate
from Training.store import StoredCase
from Training.store_writer import StoreWriter

pytest.importorskip("PIL")
TRUTH = {number: (0.0, 5.0, 80.0 - 30.0 * (number - 21)) for number in range(21, 26)}


def spine() -> Volume:
    matrix = np.eye(4)
    matrix[:3, :3] = [[0, 0, 4.0], [-2.0, 0, 0], [0, -2.0, 0]]
    matrix[:3, 3] = (-8, 60, 110)
    return Volume((np.arange(5 * 90 * 50) % 250).reshape(5, 90, 50).astype(np.int16), matrix)


def written(folder: Path, shift: int, numbers=tuple(TRUTH)) -> None:
    places = {DISC_NAMES[number + shift]: tuple(np.add(TRUTH[number], (0, 0, 1.0))) for number in numbers}
    points = [Landmark(name, place, 0.9) for name, place in places.items()]
    write_result(Result("discs", spine(), points=points), folder, report=False)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Two cases with known levels and one without; results that are right, and results one level too high."""
    folder = tmp_path_factory.mktemp("discs")
    discs = [[number, *place] for number, place in TRUTH.items()]
    with StoreWriter(folder / "spines.h5") as writer:
        for name in ("one", "two"):
            writer.add(StoredCase(name, name, "", "test", spine(), provenance={"discs": discs}))
        unknown = [[None, *disc[1:]] for disc in discs]
        writer.add(StoredCase("odd", "odd", "", "odd", spine(), provenance={"discs": unknown}))
    for name in ("one", "two"):
        written(folder / "right" / name, 0)
    written(folder / "shifted" / "one", -1)
    return folder


def run(place: Path, output: Path, *more: str) -> int:
    methods = ["--results", f"Right={place / 'right'}", "--results", f"Shifted={place / 'shifted'}"]
    arguments = ["--task", "discs", *methods, "--store", str(place / "spines.h5"), "--output", str(output), *more]
    return evaluate.main(arguments)


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_tables_tell_a_shifted_numbering_and_a_missing_result(place, tmp_path, capsys):
    assert run(place, tmp_path / "out", "--split", "test") == 3  # the second method has no result of one case
    right, shifted = rows(tmp_path / "out" / "summary.csv")
    assert (right["Found [%]"], right["Named right [%]"], right["Whole chains right [%]"]) == ("100.0",) * 3
    assert right["Distance [mm]"] == "1.00"
    assert (shifted["Found [%]"], shifted["Named right [%]"]) == ("50.0", "0.0")  # no result: all are missed
    assert shifted["Off by one [%]"] == "50.0"
    published = {(row["Method"], row["Rule"]): row for row in rows(tmp_path / "out" / "published.csv")}
    assert published["Shifted", "released"]["FNR [%]"] == "0.00"  # these rules do not see it
    assert published["Shifted", "rouhier"]["Cases"] == "1" and published["Right", "rouhier"]["Cases"] == "2"
    levels = [row for row in rows(tmp_path / "out" / "levels.csv") if row["Method"] == "Right"]
    assert [row["Level"] for row in levels] == [DISC_NAMES[number] for number in TRUTH]
    cases = {(row["Case"], row["Method"]): row for row in rows(tmp_path / "out" / "cases.csv")}
    assert cases["one", "Right"]["Whole chain right"] == "yes" and cases["one", "Shifted"]["Named right"] == "0"
    assert "result" in cases["two", "Shifted"]["Error"]
    told = capsys.readouterr()
    assert "Published measures" in told.out and "Shifted, two:" in told.err


def test_pictures_page_and_record(place, tmp_path):
    run(place, tmp_path / "out", "--split", "test")
    assert (tmp_path / "out/overlays/Right/one.png").read_bytes()[:4] == b"\x89PNG"
    page = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert "overlays/Shifted/one.png" in page and "Whole chains right" in page
    record = json.loads((tmp_path / "out/summary.json").read_text())
    assert record["summaries"]["Right"]["accuracy"] == 1.0 and "report.html" in record["files"]
    assert run(place, tmp_path / "out", "--split", "test", "--no-pictures") == 3  # an earlier evaluation is replaced
    assert not (tmp_path / "out/overlays").exists()


def test_cases_without_known_levels_are_named(place, tmp_path, capsys):
    assert run(place, tmp_path / "all") == 3
    assert any("levels of its discs are not known" in row["Error"] for row in rows(tmp_path / "all" / "cases.csv"))
    assert run(place, tmp_path / "odd", "--split", "odd") == 1
    assert not (tmp_path / "odd").exists() and "result of none" in capsys.readouterr().err


def test_options_of_masks_do_not_belong_here(place, tmp_path, capsys):
    assert run(place, tmp_path / "out", "--rules", "legacy_slex") == 1
    assert "--rules" in capsys.readouterr().err
    folder = ["--results", f"A={place / 'right'}", "--truth", str(place), "--output", str(tmp_path / "out")]
    assert evaluate.main(["--task", "discs", *folder]) == 1
    assert "store" in capsys.readouterr().err
