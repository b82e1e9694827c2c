"""Makes SpineDiscLabelLib importable for this room's tests."""

from __future__ import annotations

import sys
from pathlib import Path

ROOM = str(Path(__file__).resolve().parents[1])
if ROOM not in sys.path:
    sys.path.insert(0, ROOM)
