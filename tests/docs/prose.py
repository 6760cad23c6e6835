"""Checks the prose of the documents, and keeps the old vocabulary out of code, templates and documents.

`python -m tests.docs.prose` prints every finding as file:line and exits 1 if there is one. The words are in old_words.toml.
"""

import re
import sys
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
OLD_WORDS = Path(__file__).with_name("old_words.toml")
LONG, LONGEST, LONG_ALLOWED = 35, 50, 0.10
"""Words of a sentence: the share above LONG is limited, and none may exceed LONGEST."""

CODE_FOLDERS = (
    *(
        "accounts",
        "audit",
        "benchmarks",
        "common",
        "crpbot",
        "deploy",
        "distribution",
        "gates",
        "machines",
        "mlcore",
    ),
    *("crpbot_runtime", "studies", "templates", "tests", "training"),
)
CODE_SUFFIXES = (".py", ".html", ".js", ".css", ".txt")

FENCE = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
NOT_PROSE = re.compile(r"^ *(?:\||#|<|!\[|-{3})")
LIST_ITEM = re.compile(r"^ *(?:[-*]|\d+\.) ")
LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
SENTENCE_END = re.compile(r"(?<=[.!?])[*_”\")]*\s+(?=[*_“\"(\[`]*[A-Z0-9`])")


@dataclass(frozen=True)
class Sentence:
    line: int
    text: str

    @property
    def words(self) -> int:
        plain = LINK.sub(r"\1", re.sub(r"`[^`]*`", "code", self.text))
        return sum(any(c.isalnum() for c in word) for word in plain.split())


def sentences(markdown: str) -> Iterator[Sentence]:
    """The sentences of a document, without headings, tables, images and code."""
    blanked = FENCE.sub(lambda block: "\n" * block[0].count("\n"), markdown)
    block: list[str] = []
    start = 1
    for number, line in enumerate([*blanked.splitlines(), ""], start=1):
        is_code = line.startswith("    ") and not block
        ends = not line.strip() or NOT_PROSE.match(line) or is_code
        if block and (ends or LIST_ITEM.match(line)):
            yield from (Sentence(start, text) for text in SENTENCE_END.split(" ".join(block)))
            block = []
        if not ends:
            start = start if block else number
            block.append(LIST_ITEM.sub("", line).strip())


def old_words(text: str, words: dict[str, str]) -> Iterator[tuple[int, str, str]]:
    """(line, word, replacement) for every word of the list in a text."""
    for word, replacement in words.items():
        pattern = re.compile(rf"(?<![A-Za-z]){word}(?![A-Za-z])", re.IGNORECASE)
        for number, line in enumerate(text.splitlines(), start=1):
            if found := pattern.search(line):
                yield number, found[0], replacement


def documents() -> list[Path]:
    return sorted([*(REPOSITORY / "docs").rglob("*.md"), *REPOSITORY.glob("*.md")])


def code() -> list[Path]:
    files = [path for folder in CODE_FOLDERS for path in (REPOSITORY / folder).rglob("*")]
    return sorted(p for p in files if p.suffix in CODE_SUFFIXES and "migrations" not in p.parts)


def check_sentences(paths: Sequence[Path]) -> Iterator[str]:
    for path in paths:
        found = list(sentences(path.read_text()))
        long = [sentence for sentence in found if sentence.words > LONG]
        is_too_many = len(long) > LONG_ALLOWED * len(found)
        for sentence in long:
            if is_too_many or sentence.words > LONGEST:
                yield f"{_name(path)}:{sentence.line}: {sentence.words} words: {sentence.text[:70]}…"


def check_words() -> Iterator[str]:
    words = tomllib.loads(OLD_WORDS.read_text())
    for path in [*documents(), *code()]:
        if path.parent == OLD_WORDS.parent:
            continue  # the checker and its test name the words
        for line, word, replacement in old_words(path.read_text(), words):
            yield f"{_name(path)}:{line}: {word!r}: say {replacement}"


def _name(path: Path) -> str:
    return str(path.relative_to(REPOSITORY)) if path.is_relative_to(REPOSITORY) else path.name


def main() -> int:
    findings = [*check_sentences(documents()), *check_words()]
    print(*findings, sep="\n", end="\n" if findings else "")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
