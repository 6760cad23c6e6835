"""The documentation site builds without a network, without a warning, and with links and anchors that exist."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings

REPOSITORY = Path(settings.BASE_DIR)
ROOT_FILES = ("mkdocs.yml", "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")


def build(repository: Path, site: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)],
        cwd=repository,
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    built = build(REPOSITORY, folder)
    assert built.returncode == 0, built.stderr
    assert "WARNING" not in built.stderr
    return folder


def test_every_page_of_the_docs_and_of_the_root_is_in_it(site: Path) -> None:
    pages = {page.relative_to(site).with_suffix("").as_posix() for page in site.rglob("*.html")}
    sources = {
        page.relative_to(REPOSITORY / "docs").with_suffix("").as_posix()
        for page in (REPOSITORY / "docs").rglob("*.md")
    }
    assert {re.sub(r"README$", "index", source) for source in sources} <= pages
    assert {"index", "development/contributing", "development/changelog", "development/security"} <= pages


def test_no_page_fetches_anything_from_another_host(site: Path) -> None:
    loads = re.compile(r'<(?:script|link|img|iframe)\b[^>]*(?:src|href)="(https?:)?//')
    assert [page.name for page in site.rglob("*.html") if loads.search(page.read_text())] == []
    assert [
        style.name for style in site.rglob("*.css") if re.search(r"url\(.?https?:", style.read_text())
    ] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("link", "warning"),
    [
        ("no-such-page.md", "'no-such-page.md'"),
        ("README.md#no-such-heading", "no-such-heading"),
        ("../../no/such/file.py", "no/such/file.py"),
        ("../../README.md#no-such-heading", "no-such-heading"),
    ],
    ids=["page", "anchor", "file of the repository", "anchor of a root page"],
)
def test_a_broken_link_fails_the_build(tmp_path: Path, link: str, warning: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(REPOSITORY / "docs", copy / "docs")
    for name in ROOT_FILES:
        shutil.copy(REPOSITORY / name, copy)
    with (copy / "docs" / "adr" / "README.md").open("a") as page:
        page.write(f"\n[a broken link]({link})\n")
    built = build(copy, tmp_path / "site")
    assert built.returncode == 1
    assert warning in built.stderr
