"""Hooks of the documentation site, for mkdocs.yml: its navigation, the pages of the repository's root, and its links."""

import posixpath
import re
from fnmatch import fnmatchcase
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

REPOSITORY = Path(__file__).parent.parent
ROOT_PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "development/contributing.md",
    "CHANGELOG.md": "development/changelog.md",
    "SECURITY.md": "development/security.md",
}
LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s#:]+)(?P<anchor>#[^)\s]*)?\)")


def on_config(config: MkDocsConfig) -> None:
    config.mdx_configs["toc"]["slugify"] = github_anchor


def github_anchor(heading: str, separator: str) -> str:
    """The anchor of a heading, as the code host makes it: a link works there and on the site."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", separator)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the repository's root, and replace the patterns of `nav` by the pages that they match."""
    for name, page in ROOT_PAGES.items():
        files.append(File.generated(config, page, content=(REPOSITORY / name).read_text()))
    pages = sorted(file.src_uri for file in files.documentation_pages())
    pages.sort(key=lambda page: posixpath.basename(page) not in ("index.md", "README.md"))
    sections = []
    for section in config.nav or []:
        ((title, patterns),) = section.items()
        found = [page for pattern in patterns for page in pages if fnmatchcase(page, pattern)]
        found = list(dict.fromkeys(found))
        pages = [page for page in pages if page not in found]
        if found:
            sections.append({title: found})
    config.nav = sections
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links between files of the repository, as links between pages of the site.

    A file that is no page of the site is named without a link. A file that does not exist stays a link: the build warns.
    """
    here = page.file.src_uri
    source = {site: root for root, site in ROOT_PAGES.items()}.get(here, f"docs/{here}")

    def link(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), match["target"]))
        if target.startswith("docs/") and (REPOSITORY / target).is_dir():
            target += "/README.md"
        if target in ROOT_PAGES or target.startswith("docs/"):
            site = ROOT_PAGES.get(target, target.removeprefix("docs/"))
            relative = posixpath.relpath(site, posixpath.dirname(here) or ".")
            return f"{match['image']}[{match['text']}]({relative}{match['anchor'] or ''})"
        return match["text"] if (REPOSITORY / target).exists() else match[0]

    return LINK.sub(link, markdown)
