"""The goals of the recommended way to predict, each beside what the rows measured."""

from __future__ import annotations

from collections.abc import Callable

from Testing.benchmarks.results import Comparison, Row, Sheet

Rows = dict[str, Row]
#: What was measured in words, and whether the goal is reached; None where it cannot be told here.
Found = tuple[str, bool | None]
NOT_MEASURED: Found = ("not measured", None)


def _first(rows: Rows, key: str, number: int = 0) -> Comparison | None:
    row = rows.get(key)
    return row.comparisons[number] if row and len(row.comparisons) > number else None


def _slowest_window(one: Comparison, ours: str) -> float:
    """Times that the peer's own recipe (the largest overlap measured) takes of ours, by processor time."""
    peers = [taken.cpu_s for name, taken in one.peers().items()]
    return max(peers) / next(
        taken.cpu_s for name, taken in one.taken.items() if name.startswith("ours") and ours in name
    )


def _float32(rows: Rows) -> Found:
    found = {key: one for key in ("drunet", "slexnet") if (one := _first(rows, key))}
    if not found:
        return NOT_MEASURED
    times = {key: _slowest_window(one, "float32") for key, one in found.items()}
    return ", ".join(f"{key} {value:.1f}x" for key, value in times.items()), min(times.values()) >= 5


def _bfloat16(rows: Rows) -> Found:
    probed = {key: one for key in ("drunet", "slexnet") if (one := _first(rows, key))}
    times = {
        key: max(peer.cpu_s for peer in one.peers().values()) / one.ours.cpu_s
        for key, one in probed.items()
        if one.work and one.work.precision == "bfloat16"
    }
    if not times:
        return ("the probe chose float32" if probed else "not measured"), None
    return ", ".join(f"{key} {value:.1f}x" for key, value in times.items()), min(times.values()) >= 8


def _nnunet(rows: Rows) -> Found:
    facts = rows["nnunet"].facts if "nnunet" in rows else {}
    if not facts:
        return NOT_MEASURED
    times = facts["five_folds_cpu_s"] / facts["ours_cpu_s"]
    return f"{times:.0f}x (one fold with mirroring measured, the others calculated)", times >= 50


def _laptop(rows: Rows) -> Found:
    facts = rows["doors"].facts if "doors" in rows else {}
    if not facts:
        return NOT_MEASURED
    reached = facts["warm_s"] <= 10 and facts["cold_s"] <= 20
    return (
        f"{facts['warm_s']:.1f} s / {facts['cold_s']:.1f} s on two threads of this machine; no laptop at hand",
        reached,
    )


def _archive(rows: Rows) -> Found:
    facts = rows["batch"].facts if "batch" in rows else {}
    if not facts:
        return NOT_MEASURED
    count, last = list(facts.items())[-1]
    words = f"{last['linear']:.2f} by wall, {last['cost']:.2f} by processor time ({count} cases, two workers)"
    return words, last["cost"] >= 0.9


def _ratio(rows: Rows, key: str, least: float, number: int = 0) -> Found:
    one = _first(rows, key, number)
    if one is None:
        return NOT_MEASURED
    times = min(one.ratios(name)[1] for name in one.peers())
    return f"{times:.1f}x by processor time", times >= least


def _metrics(rows: Rows) -> Found:
    words, reached = _ratio(rows, "metrics", 5)
    if "metrics" not in rows:
        return NOT_MEASURED
    most = max(rows["metrics"].facts["differences"])
    return f"{words}, largest difference {most:.1e}", bool(reached) and most <= 1e-6


def _elsewhere(rows: Rows) -> Found:
    found = rows["roofline"].facts.get("elsewhere") if "roofline" in rows else None
    if not found:
        return NOT_MEASURED
    return ", ".join(f"{starter} {part:.0%}" for starter, part in found.items()), max(found.values()) <= 0.2


def _imports(rows: Rows) -> Found:
    facts = rows["startup"].facts if "startup" in rows else {}
    if not facts:
        return NOT_MEASURED
    if facts["peak_gb"] is None:
        return f"{facts['cpu_s']:.2f} s; this system does not tell the memory", None
    alone = f"torch alone {facts['torch_cpu_s']:.2f} s, {1000 * facts['torch_peak_gb']:.0f} MB"
    reached = facts["cpu_s"] <= 1.6 and facts["peak_gb"] <= 0.320
    return f"{facts['cpu_s']:.2f} s, {1000 * facts['peak_gb']:.0f} MB ({alone})", reached


def _memory(rows: Rows) -> Found:
    facts = rows["slices"].facts if "slices" in rows else {}
    if not {"40", "160", "320"} <= set(facts):
        return NOT_MEASURED
    few, many = facts["40"]["extra_gb"], facts["320"]["extra_gb"]
    if few is None or many is None:
        return "this system cannot tell", None
    middle = facts["160"]["extra_gb"]
    words = f"{few:.2f} GB / {middle:.2f} GB at 160, {many:.2f} GB at 320 slices (one class)"
    return words, few <= 0.6 and (middle + many) / 2 <= 1.5


GOALS: list[tuple[str, str, Callable[[Rows], Found]]] = [
    ("same weights against the stock MONAI window recipe, CPU, float32", ">= 5x", _float32),
    ("the same where bfloat16 probes good", ">= 8x", _bfloat16),
    ("against nnU-Net's defaults (mirroring, five folds)", ">= 50x", _nnunet),
    ("40-slice head CT, 8-core laptop without GPU, warm / cold", "<= 10 s / <= 20 s", _laptop),
    ("CUDA workstation, warm / cold", "<= 2 s / <= 10 s", lambda rows: ("not measured: no graphics card here", None)),
    ("archive, per core, of linear scaling with processes", ">= 0.9", _archive),
    ("DICOM load with geometry checks, of SimpleITK's processor time", "<= 1/2", lambda rows: _ratio(rows, "dicom", 2)),
    ("metrics of a pair (Dice, HD95, NSD, components), of MONAI's time", "<= 1/5, equal to 1e-6", _metrics),
    ("patch reads, against nii.gz", ">= 40x", lambda rows: _ratio(rows, "patches", 40)),
    ("task outside its network, of the network's time", "<= 20 %", _elsewhere),
    ("cold import of what prediction needs", "<= 1.6 s of processor, <= 320 MB", _imports),
    ("memory added, 40 / 200 slices", "<= 0.6 / <= 1.5 GB", _memory),
]


def goals(rows: Rows) -> Sheet:
    """One line per goal."""
    lines = []
    for goal, target, judge in GOALS:
        words, reached = judge(rows)
        lines.append([goal, target, words, "" if reached is None else "reached" if reached else "NOT reached"])
    return Sheet(["Goal", "Target", "Measured", ""], lines)
