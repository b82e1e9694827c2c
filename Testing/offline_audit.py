"""Compare the locked packages with advisories that need no network: those of the PyPI package ``safety-db``.

    python Testing/offline_audit.py [requirements.lock.txt]

The newest ``safety-db`` is of July 2021, so this finds only what was known then and is still said of every version;
``pip-audit`` (make audit) asks the current databases. Prints each advisory that a pinned version falls under; exit
status 1 if there is one that is not answered below.
"""

from __future__ import annotations

import json
import re
import sys
from datetime import datetime, timezone
from importlib.metadata import distribution
from pathlib import Path

from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

LOCK = Path(__file__).resolve().parents[1] / "requirements.lock.txt"
#: CVE -> why it does not concern us, with the test that shows it.
ANSWERED = {
    "CVE-2020-28463": "no text reaches reportlab as markup (test_hostile_texts.py::test_a_pdf_fetches_nothing)",
}


def pins(text: str) -> dict[str, str]:
    """Canonical package name -> pinned version of a lock file."""
    found = re.findall(r"^([\w.\-]+)==([\w.!]+)", text, re.MULTILINE)
    return {canonicalize_name(name): version for name, version in found}


def weaknesses(pinned: dict[str, str], advisories: dict[str, list[dict]]) -> list[tuple[str, str, str, str]]:
    """(package, version, CVE or id, advisory) for every advisory that speaks of a pinned version."""
    by_name = {canonicalize_name(name): told for name, told in advisories.items() if not name.startswith("$")}
    return [
        (name, version, advisory.get("cve") or advisory["id"], advisory["advisory"])
        for name, version in pinned.items()
        for advisory in by_name.get(name, ())
        if any(SpecifierSet(spec).contains(version, prereleases=True) for spec in advisory["specs"])
    ]


def main(lock: str = str(LOCK)) -> int:
    """Compare and print; the exit status."""
    table = distribution("safety-db").locate_file("safety_db/insecure_full.json")  # the package cannot be imported
    advisories = json.loads(Path(table).read_text(encoding="utf-8"))
    day = datetime.fromtimestamp(advisories["$meta"]["timestamp"], timezone.utc)
    pinned = pins(Path(lock).read_text(encoding="utf-8"))
    found = weaknesses(pinned, advisories)
    for name, version, cve, advisory in found:
        print(f"{name} {version}: {cve}: {ANSWERED.get(cve, advisory)}")
    print(f"{len(pinned)} packages, {len(found)} advisories of those known on {day:%Y-%m-%d}")
    return int(any(cve not in ANSWERED for _, _, cve, _ in found))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
