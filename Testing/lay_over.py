"""Let this environment see the packages of another one, behind its own: lay_over.py PYTHON_OF_THE_OTHER."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

QUESTION = "import sysconfig; print(sysconfig.get_path('purelib'))"


def main(other: str) -> None:
    """Write the .pth file that does it."""
    folder = subprocess.run([other, "-c", QUESTION], capture_output=True, text=True, check=True).stdout.strip()
    own = Path(sysconfig.get_path("purelib"))
    (own / "beneath.pth").write_text(f"import site; site.addsitedir({folder!r})\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
