"""Translated words in files that know no Slicer: where Slicer runs, its translator is asked; elsewhere words stay.

What a panel says is translated: texts of .ui files by Qt, those of module files and ``scene*.py`` by
``slicer.i18n.tr``, those of the libraries' ``panel*.py`` by this. Everything that a person may have to look up or send
to somebody else stays English wherever it is shown, as it is the same in the log, on the command line and in the
report: sentences of errors and warnings, names of measurements, of maps and of segments.
"""

from __future__ import annotations

import sys
from collections.abc import Callable


def translator(module: str) -> Callable[[str], str]:
    """``_`` for a file: ``_ = translator(__name__)``; call it with plain strings, when the words are shown.

    Args:
        module: dotted name of the file; its last part is the context that Slicer's translators see.
    """
    context = module.rpartition(".")[2]

    def tr(text: str) -> str:
        i18n = sys.modules.get("slicer.i18n")
        return text if i18n is None else i18n.translate(context, text)

    return tr
