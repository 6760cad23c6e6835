"""Names that people tell apart by looking at them: normalised, and refused when another one looks the same.

Unicode has many letters that look alike (Cyrillic "а" and Latin "a"), and Technical Standard 39 lists them. Two names are
confusable if they are equal after replacing each letter by the one that stands for all its lookalikes.
"""

import unicodedata
from collections.abc import Iterable
from functools import cache

INVISIBLE_LETTERS = frozenset("\u115f\u1160\u3164\uffa0")
"""Hangul fillers: letters by category, and drawn as nothing."""

_LEFT_TO_RIGHT_MARK = "\u200e"  # surrounds right-to-left letters in the table


def normalize(name: str) -> str:
    """One spelling for what is the same text: full-width and composed letters become ordinary ones (NFKC)."""
    return unicodedata.normalize("NFKC", name)


def has_invisible(name: str) -> bool:
    """Whether the name holds a character that is not drawn: zero-width, direction marks, fillers, controls."""
    return any(unicodedata.category(c).startswith("C") or c in INVISIBLE_LETTERS for c in name)


def are_confusable(one: str, other: str) -> bool:
    """Whether a reader could take one name for the other: other case, other alphabet, or invisible characters."""
    return not _list_readings(one).isdisjoint(_list_readings(other))


def find_confusable(name: str, others: Iterable[str]) -> str | None:
    """The first of `others` that this name could be taken for; None if there is none."""
    readings = _list_readings(name)
    return next((other for other in others if not readings.isdisjoint(_list_readings(other))), None)


def to_skeleton(name: str) -> str:
    """The name with each letter replaced by the one that stands for all its lookalikes. It keeps capitals."""
    return _replace_lookalikes("".join(c for c in normalize(name) if not has_invisible(c)))


def _list_readings(name: str) -> frozenset[str]:
    """What a name may be read as. "Ivan" is read as "ivan" by case, and as "lvan" by the look of its first letter."""
    visible = "".join(c for c in normalize(name) if not has_invisible(c))
    folded = normalize(visible.casefold())
    return frozenset({folded, to_skeleton(folded), to_skeleton(visible).casefold()})


def _replace_lookalikes(text: str) -> str:
    representatives = _load_representatives()
    return "".join(representatives.get(c, c) for c in text)


@cache
def _load_representatives() -> dict[str, str]:
    """For each letter with lookalikes, the one that stands for all of them; for "m" it is "rn"."""
    from confusable_homoglyphs.confusables import confusables_data  # it reads its tables at once

    parents: dict[str, str] = {}

    def find_root(letter: str) -> str:
        while parents.setdefault(letter, letter) != letter:
            letter = parents[letter]
        return letter

    for letter, lookalikes in confusables_data.items():
        for lookalike in lookalikes:
            one, other = letter.strip(_LEFT_TO_RIGHT_MARK), lookalike["c"].strip(_LEFT_TO_RIGHT_MARK)
            parents[find_root(one)] = find_root(other)
    groups: dict[str, set[str]] = {}
    for letter in parents:
        groups.setdefault(find_root(letter), set()).add(letter)
    chosen: dict[str, str] = {}
    for group in groups.values():
        # A sequence comes first, because the letters of a text are replaced one by one.
        representative = min(group, key=lambda letter: (-len(letter), not letter.isascii(), letter))
        chosen |= {letter: representative for letter in group if len(letter) == 1}
    return chosen
