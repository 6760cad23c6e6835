"""The prose check itself."""

from pathlib import Path

import pytest

from tests.docs import prose

PAGE = """# Title

One two. Three `a b c` [four](five six)!

| a | b |

```sh
code here
```

- an item
1. Another
"""


def test_sentences_leave_out_headings_tables_and_code() -> None:
    found = [(sentence.line, sentence.words) for sentence in prose.sentences(PAGE)]
    assert found == [(3, 2), (3, 3), (11, 2), (12, 1)]


def test_a_sentence_may_span_lines() -> None:
    assert [sentence.words for sentence in prose.sentences("one two\nthree four. Five\nsix.\n")] == [4, 2]


@pytest.mark.parametrize(
    ("lengths", "findings"),
    [([35] * 10, 0), ([36] + [5] * 9, 0), ([36, 36] + [5] * 8, 2), ([51] + [5] * 20, 1)],
)
def test_one_sentence_in_ten_may_be_long_and_none_very_long(
    tmp_path: Path, lengths: list[int], findings: int
) -> None:
    path = tmp_path / "page.md"
    path.write_text("\n\n".join(" ".join(["Word"] * length) + "." for length in lengths))
    assert len(list(prose.check_sentences([path]))) == findings


def test_an_old_word_is_found_as_a_whole_word_with_its_replacement() -> None:
    text = "first line\nThe Watermark is here, watermarked is not."
    assert list(prose.old_words(text, {"watermark": "revision log"})) == [(2, "Watermark", "revision log")]


@pytest.mark.slow
@pytest.mark.long
def test_documents_and_code_are_clean() -> None:
    assert not [*prose.check_sentences(prose.documents()), *prose.check_words()]
