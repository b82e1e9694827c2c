"""The folder of an evaluation of discs: tables as CSV, one overlay per case and method, a page with all of it.

cases.csv       one row per case and method
summary.csv     found, false, accuracy under the disc's own name, off by one, whole chains
levels.csv      the same by level
published.csv   distance to target, FNR and FPR by the papers' rules, which do not look at names
report.html     for reading; overlays/METHOD/CASE.png its pictures
summary.json    all numbers, what was judged and how
"""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from NeuraxisLib import RESEARCH_USE_NOTICE, __version__
from NeuraxisLib.result import Table
from NeuraxisLib.task import Progress
from SpineDiscLabelLib.discs import DISC_NAMES
from Training.evaluation.disc_judging import DiscEvaluation, DiscMethod, JudgedDiscs, judge_discs
from Training.evaluation.disc_pictures import draw_discs
from Training.evaluation.discs import WITHIN_MM, DiscSummary, per_level
from Training.evaluation.discs_published import RULES, in_plane, published_scores
from Training.evaluation.output import (
    REPORT_FILE,
    SCHEMA,
    SCHEMA_VERSION,
    SUMMARY_FILE,
    file_stem,
    plain,
    whole_folder,
    write_csv,
)
from Training.evaluation.tables import number
from Training.store import Store


def write_disc_evaluation(
    output: Path,
    store: Store,
    ids: Sequence[str],
    methods: Sequence[DiscMethod],
    progress: Progress,
    pictures: bool = True,
) -> tuple[DiscEvaluation, dict[str, Table]]:
    """Judge all methods and write the folder, whole or not at all; returns what was judged and the tables.

    Raises:
        OutputError: the folder holds something else, may not be written to, or the disk is full.
        InputError: no case could be judged.
    """
    with whole_folder(output) as folder:
        drawn: list[tuple[str, str]] = []
        for evaluation, image in judge_discs(store, ids, methods, progress):
            for one in evaluation.judged[-len(methods) :] if pictures else ():
                place = f"overlays/{file_stem(one.method)}/{file_stem(one.case)}.png"
                (folder / place).parent.mkdir(parents=True, exist_ok=True)
                named = {_name(number): at for number, at in one.truth.items()}
                (folder / place).write_bytes(draw_discs(image, one.points, named))
                drawn.append((f"{one.method}: {one.case}", place))
        tables = disc_tables(evaluation)
        for stem, table in tables.items():
            heads = [f"{head} [{unit}]" if unit else head for head, unit in table.columns]
            write_csv(folder / f"{stem}.csv", heads, table.rows)
        (folder / REPORT_FILE).write_text(_page(evaluation, tables, drawn), encoding="utf-8")
        _write_summary(folder, evaluation)
    return evaluation, tables


# -- tables -------------------------------------------------------------------------------------------------------


def disc_tables(evaluation: DiscEvaluation) -> dict[str, Table]:
    """File stem -> table, the most important first."""
    made = {"summary": _summary_table, "published": _published_table, "levels": _level_table, "cases": _case_table}
    return {stem: make(evaluation) for stem, make in made.items()}


def _percent(share: float) -> str:
    return number(100 * share, 1)


def _summary_table(evaluation: DiscEvaluation) -> Table:
    rows = []
    for method in evaluation.methods:
        s = DiscSummary.of([one.compared for one in evaluation.of(method)])
        shares = (s.found, s.false, s.accuracy, s.off_by_one, s.chains_named_right, s.whole_chains_right)
        mean, spread = (number(value, 2) for value in s.distance_mm)
        rows.append((method, s.cases, s.discs, *map(_percent, shares), mean, spread))
    heads = (
        ("Method", ""), ("Cases", ""), ("Discs", ""), ("Found", "%"), ("False", "%"), ("Named right", "%"),
        ("Off by one", "%"), ("Chains named right", "%"), ("Whole chains right", "%"), ("Distance", "mm"), ("SD", "mm"),
    )  # fmt: skip
    return Table(f"Discs within {WITHIN_MM:g} mm, and their names", heads, tuple(rows))


def _published_table(evaluation: DiscEvaluation) -> Table:
    """Cases without any point are left out, because the rules do not define them; the table says how many remain."""
    rows = []
    for method in evaluation.methods:
        pairs = [
            (in_plane(list(one.truth.values())), in_plane([point.position_ras_mm for point in one.points]))
            for one in evaluation.of(method)
            if one.points
        ]
        for rule in RULES if pairs else ():
            s = published_scores(pairs, rule)
            numbers = (s.mean_distance, *s.distance, s.missed_percent, s.false_percent)
            rows.append((method, rule, len(pairs), *(number(value, 2) for value in numbers)))
    heads = (
        ("Method", ""), ("Rule", ""), ("Cases", ""), ("DTT", "mm"), ("Median", "mm"), ("SD", "mm"), ("FNR", "%"),
        ("FPR", "%"),
    )  # fmt: skip
    return Table("Published measures, which do not look at names", heads, tuple(rows))


def _level_table(evaluation: DiscEvaluation) -> Table:
    rows = [
        (method, _name(x.disc), x.truths, x.found, x.named_right, x.false, number(x.mean_mm, 2))
        for method in evaluation.methods
        for x in per_level([one.compared for one in evaluation.of(method)])
    ]
    heads = (
        ("Method", ""), ("Level", ""), ("Discs", ""), ("Found", ""), ("Named right", ""), ("False", ""),
        ("Distance", "mm"),
    )  # fmt: skip
    return Table("By level", heads, tuple(rows))


def _case_table(evaluation: DiscEvaluation) -> Table:
    rows = [(one.case, one.method, *_case_numbers(one), one.error) for one in evaluation.judged]
    rows += [(case, "", *[""] * 6, f"not judged: {reason}") for case, reason in evaluation.unjudged.items()]
    heads = (
        ("Case", ""), ("Method", ""), ("Discs", ""), ("Found", ""), ("False", ""), ("Named right", ""),
        ("Off by one", ""), ("Whole chain right", ""), ("Error", ""),
    )  # fmt: skip
    return Table("Cases", heads, tuple(rows))


def _case_numbers(one: JudgedDiscs) -> tuple:
    c = one.compared
    return c.truths, len(c.pairs), len(c.false), c.named_right, c.off_by_one, "yes" if c.whole_chain_right else "no"


def _name(disc: int) -> str:
    return DISC_NAMES.get(disc, f"disc {disc}")


# -- files --------------------------------------------------------------------------------------------------------


def _page(evaluation: DiscEvaluation, tables: dict[str, Table], drawn: list[tuple[str, str]]) -> str:
    """The report; its pictures lie beside it."""
    parts = [
        "<!DOCTYPE html><html lang='en'><head><meta charset='utf-8'><title>Discs</title><style>",
        "body{font-family:sans-serif;margin:2em} td,th{padding:.2em .7em;text-align:left;border-bottom:1px solid #ccc}",
        "table{border-collapse:collapse} figure{display:inline-block;margin:.5em} img{max-height:30em}</style></head>",
        f"<body><h1>Discs of {html.escape(evaluation.source)}</h1><p>{html.escape(RESEARCH_USE_NOTICE)}</p>",
    ]
    for table in tables.values():
        heads = [f"{head} [{unit}]" if unit else head for head, unit in table.columns]
        rows = [_row("th", heads), *(_row("td", row) for row in table.rows)]
        parts += [f"<h2>{html.escape(table.title)}</h2><table>", *rows, "</table>"]
    if drawn:
        parts.append("<h2>Cases</h2><p>Red crosses: the truth. Orange: points that the method is not sure of.</p>")
    for title, place in drawn:
        title, place = html.escape(title), html.escape(place)
        parts.append(f"<figure><img src='{place}' alt='{title}'><figcaption>{title}</figcaption></figure>")
    return "\n".join([*parts, "</body></html>\n"])


def _row(tag: str, cells: Sequence) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(str(cell))}</{tag}>" for cell in cells) + "</tr>"


def _write_summary(folder: Path, evaluation: DiscEvaluation) -> None:
    """summary.json, which names all other files of the folder."""
    summaries = {
        method: asdict(DiscSummary.of([one.compared for one in evaluation.of(method)])) for method in evaluation.methods
    }
    document = {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "task": "discs",
        "research_use_notice": RESEARCH_USE_NOTICE,
        "neuraxis": __version__,
        "truth": evaluation.source,
        "within_mm": WITHIN_MM,
        "methods": evaluation.methods,
        "unjudged": evaluation.unjudged,
        "failures": [{"case": x.case, "method": x.method, "error": x.error} for x in evaluation.judged if x.error],
        "summaries": summaries,
        "files": sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()),
    }
    text = json.dumps(plain(document), indent=1, ensure_ascii=False, allow_nan=False)
    (folder / SUMMARY_FILE).write_text(text, encoding="utf-8")
