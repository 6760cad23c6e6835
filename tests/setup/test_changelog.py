"""CHANGELOG.md keeps the form of Keep a Changelog, so that people and programs can read it."""

import re
from itertools import pairwise
from pathlib import Path

from django.conf import settings
from packaging.version import Version

HEADINGS = re.findall(
    r"^(#+) (.+)$", (Path(settings.BASE_DIR) / "CHANGELOG.md").read_text(), flags=re.MULTILINE
)
SECTIONS = [title for level, title in HEADINGS if level == "##"]
KINDS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_it_begins_with_what_is_unreleased() -> None:
    assert HEADINGS[0] == ("#", "Changelog")
    assert SECTIONS[0] == "[Unreleased]"


def test_a_release_has_a_version_and_a_date_the_newest_first() -> None:
    releases = [re.fullmatch(r"\[(\d+\.\d+\.\d+)\] - \d{4}-\d{2}-\d{2}", title) for title in SECTIONS[1:]]
    assert None not in releases, SECTIONS
    versions = [Version(release[1]) for release in releases if release]
    assert all(newer > older for newer, older in pairwise(versions))


def test_every_change_is_of_a_known_kind_and_each_kind_comes_once() -> None:
    kinds: dict[str, list[str]] = {}
    for level, title in HEADINGS[1:]:
        if level == "##":
            kinds[title] = []
        else:
            kinds[list(kinds)[-1]].append(title)
    for section, titles in kinds.items():
        assert set(titles) <= KINDS, section
        assert len(titles) == len(set(titles)), section
        assert titles or section == "[Unreleased]", f"{section} says nothing"
