"""What was done with a candle file: its format and layout, and a note for everything that was changed or left out."""

from dataclasses import asdict, dataclass
from typing import Any, Self

MAX_NOTES = 50
MAX_LETTERS = 1000


@dataclass(frozen=True)
class ImportReport:
    """Shown before and after an import, and stored with the dataset."""

    format: str = ""
    """The form of the bytes, such as `CSV in zip`."""
    layout: str = ""
    """Who writes such columns, such as `Binance`, or that they have names."""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Texts of a file are in it: nothing that cannot be printed, and nothing long, reaches a page or a terminal."""
        object.__setattr__(self, "format", _shorten(self.format))
        object.__setattr__(self, "layout", _shorten(self.layout))
        object.__setattr__(self, "notes", tuple(map(_shorten, self.notes)))

    def with_notes(self, *notes: str) -> Self:
        return type(self)(self.format, self.layout, (*self.notes, *notes))

    def document(self) -> dict[str, Any]:
        return {**asdict(self), "notes": list(self.notes)}

    @classmethod
    def from_document(cls, document: object) -> Self:
        """Raises ValueError for anything but a document of a limited size."""
        if not isinstance(document, dict) or set(document) != {"format", "layout", "notes"}:
            raise ValueError("not an import report")
        notes = document["notes"]
        texts = [document["format"], document["layout"], *(notes if isinstance(notes, list) else [None])]
        if len(texts) > MAX_NOTES + 2 or not all(
            isinstance(text, str) and len(text) <= MAX_LETTERS for text in texts
        ):
            raise ValueError("not an import report")
        return cls(document["format"], document["layout"], tuple(notes))


def _shorten(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text[:MAX_LETTERS])
