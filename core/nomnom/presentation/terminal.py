"""Text of unknown origin made safe for a terminal."""

from __future__ import annotations

_STAND_IN = "·"


def printable(text: str, *, keep: str = "") -> str:
    """The text with a dot for each character that a terminal would obey instead of showing.

    These are escape and other control characters, and those that change the direction of text. Characters in ``keep``
    stay. The result has as many characters as the text.
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() or each in keep else _STAND_IN for each in text)
