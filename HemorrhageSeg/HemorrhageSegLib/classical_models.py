"""The model files of the methods without weights: headers alone, so that every list of models offers them.

``python -m HemorrhageSegLib.classical_models FOLDER`` writes them again; a test compares them with those shipped.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

from HemorrhageSegLib.classical import ActiveContourParameters, FuzzyCMeansParameters
from NeuraxisLib.models import SUFFIX, write_model

_NOTICE = (
    "A classical method to compare with, not a trained network: it sees density alone, calls dense vessels and falx "
    "blood, and misses blood as dense as brain. Its map is {what}, not a calibrated probability, and so are the "
    "intervals made from it. For research use only. Not a medical device; not for diagnosis or treatment decisions."
)
_DATA = (
    "None. Parameters were fixed by reasoning and on 16 real head CTs of CT-ICH v1 (CC BY 4.0), with bleeds simulated "
    "in those without."
)


def _header(name: str, title: str, architecture: str, parameters: FuzzyCMeansParameters, what: str) -> dict:
    return {
        "name": name,
        "title": title,
        "task": "hemorrhage",
        "architecture": {"name": architecture, "arguments": asdict(parameters)},
        "preprocessing": {"kind": "none"},
        "labels": {"1": "Hemorrhage"},
        "threshold": 0.5,
        "min_component_ml": 0.5,
        "uncertainty": {"kind": "entropy"},
        "training": {"simulated": False, "data": _DATA},
        "licence": "Apache-2.0",
        "notice": _NOTICE.format(what=what),
        "scores": {},
        "comparator": True,
    }


#: Headers of the model files, by their names.
HEADERS = {
    header["name"]: header
    for header in (
        _header(
            "hemorrhage-fuzzy-c-means",
            "Fuzzy c-means (no training)",
            "FuzzyCMeans",
            FuzzyCMeansParameters(),
            "a membership in the cluster of dense voxels",
        ),
        _header(
            "hemorrhage-active-contour",
            "Active contour (no training)",
            "ActiveContour",
            ActiveContourParameters(),
            "a distance from the contour",
        ),
    )
}


def write_model_files(folder: Path) -> list[Path]:
    """Write the model files of all methods into a folder; OutputError if one cannot be written."""
    paths = [folder / f"{name}{SUFFIX}" for name in HEADERS]
    for path, header in zip(paths, HEADERS.values()):
        write_model(path, {}, header)
    return paths


if __name__ == "__main__":
    for written in write_model_files(Path(sys.argv[1])):
        print(written)
