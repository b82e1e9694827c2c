"""``slicer.i18n``: no translation is loaded, so a text is its own translation, unless a test sets a language."""

from __future__ import annotations

from collections.abc import Callable

#: Text -> text in the user's language.
language: Callable[[str], str] = str


def tr(text: str) -> str:
    """The text in the user's language; it has to be a plain string, since translators never see an f-string."""
    if not isinstance(text, str):
        raise TypeError("only a string can be translated")
    return language(text)


def translate(context: str, text: str) -> str:
    """The text as another class of Slicer translates it."""
    return tr(text)


def getContext(sourceFile: str) -> str:
    """Name of the translation context of a source file."""
    return sourceFile
