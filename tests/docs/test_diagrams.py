"""The diagrams of the documentation are those of the code."""

import pytest

from tests.docs import diagrams


@pytest.mark.parametrize("name", ["states.md", "entities.md"])
def test_a_page_is_as_the_code_makes_it(name: str) -> None:
    written = (diagrams.CONCEPTS / name).read_text()
    assert written == diagrams.pages()[name], "run `python -m tests.docs.diagrams`"
