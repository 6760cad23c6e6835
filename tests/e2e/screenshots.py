"""Every page as a picture: `python -m tests.e2e.screenshots [FOLDER [NAME…]]`, light and dark, wide and narrow.

A NAME is a page (`board`) or one picture of it (`board-wide-light`). The pictures of the documentation are made by
`python -m tests.e2e.screenshots docs/screenshots $(ls docs/screenshots | sed s/.png//)`.

The pages show the example data of the page tests (tests.pages.example_data). The real web process serves them from a
temporary state folder.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.loopback import free_port, wait_until_it_answers

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = REPOSITORY / "var" / "screenshots"
WIDTHS = {"wide": 1280, "narrow": 390}
SCHEMES = ("light", "dark")
SERVER = """
import uvicorn
uvicorn.run("crpbot.asgi:application", host="127.0.0.1", port={port}, log_level="warning", lifespan="off")
"""


def pictures() -> dict[str, tuple[str, str | None]]:
    """Each picture's name, with the page's address and who looks at it."""
    from deploy.bots.key_decisions import create_key
    from deploy.serving import keys
    from tests.pages import example_data
    from tests.scenarios import APPROVER

    example_data.create_people()
    keys.ensure_first()
    create_key(actor=APPROVER, reason="the yearly rotation")
    examples = example_data.create_examples(bars=6_000)  # with bots, which report the keys that they trust
    return {
        "sign-in": ("/sign-in/", None),
        "no-role": ("/", "norma"),
        "board": ("/", "anna"),
        "board-live": ("/?gates=live", "anna"),
        "launch": ("/launch/", "olivia"),
        "releases": ("/releases/", "anna"),
        "release-awaiting": (f"/releases/{examples.awaiting.pk}/", "anna"),
        "release-rejected": (f"/releases/{examples.rejected.pk}/", "anna"),
        "release-broken": (f"/releases/{examples.inherited.pk}/", "victor"),
        "release-live": (f"/releases/{examples.fallback.pk}/", "victor"),
        "release-building": (f"/releases/{examples.building.pk}/", "olivia"),
        "report": (f"/releases/{examples.awaiting.pk}/report/", "anna"),
        "bots": ("/bots/", "anna"),
        "retire-bot": (f"/bots/{examples.bot.pk}/retire/", "olivia"),
        "keys": ("/bots/keys/", "anna"),
        "tokens": ("/tokens/", "ada"),
        "account": ("/account/", "anna"),
        "authenticator-app": ("/account/app/", "anna"),
        "security-key": ("/account/keys/add/", "anna"),
        "runs": ("/runs/", "olivia"),
        "runs-compared": (
            f"/runs/compare/?run={examples.running_run.pk}&run={examples.failed_run.pk}",
            "olivia",
        ),
        "studies": ("/studies/", "olivia"),
        "study": (f"/studies/{examples.study.pk}/", "olivia"),
        "study-launch": ("/studies/launch/", "olivia"),
        "run-running": (f"/runs/{examples.running_run.pk}/", "olivia"),
        "run-failed": (f"/runs/{examples.failed_run.pk}/", "olivia"),
        "bundles": ("/bundles/", "olivia"),
        "lines": ("/lines/", "olivia"),
        "coins": ("/coins/", "ada"),
        "datasets": ("/datasets/", "olivia"),
        "dataset": (f"/datasets/{examples.dataset.pk}/", "olivia"),
        "dataset-market": (f"/datasets/{examples.market.pk}/", "olivia"),
        "dataset-refused": (f"/datasets/{examples.noise.pk}/", "olivia"),
        "policies": ("/policies/", "anna"),
        "policy": ("/policies/2/", "anna"),
        "diagnosis": (f"/diagnoses/{examples.diagnosis.pk}/", "anna"),
        "propose": ("/policies/propose/", "anna"),
        "draft": ("/policies/drafts/real-markets/", "anna"),
        "workers": ("/workers/", "victor"),
        "machines": ("/machines/", "ada"),
        "backups": ("/backups/", "ada"),
        "glossary": ("/glossary/", "victor"),
        "features": ("/features/", "victor"),
        "runbook": ("/runbooks/fallback.html", "victor"),
        "audit": ("/admin/audit/auditevent/", "ada"),
        "not-found": ("/releases/9999/", "victor"),
    }


@contextmanager
def served() -> Iterator[str]:
    """The web process on a free port; its address."""
    port = free_port()
    server = subprocess.Popen([sys.executable, "-c", SERVER.format(port=port)], cwd=REPOSITORY)
    address = f"http://127.0.0.1:{port}"
    try:
        wait_until_it_answers(f"{address}/healthz")
        yield address
    finally:
        server.terminate()
        server.wait(10)


def take(folder: Path, only: set[str]) -> None:
    from tests.e2e.browser import chromium

    wanted = {
        name: what
        for name, what in pictures().items()
        if not only or any(chosen == name or chosen.startswith(f"{name}-") for chosen in only)
    }
    taken = 0
    folder.mkdir(parents=True, exist_ok=True)
    with served() as address, chromium() as browser:
        for scheme in SCHEMES:
            for width_name, width in WIDTHS.items():
                for person in dict.fromkeys(person for _, person in wanted.values()):
                    mine = {name: path for name, (path, who) in wanted.items() if who == person}
                    for name, page in _shown(browser, address, mine, person, scheme, width):
                        picture = f"{name}-{width_name}-{scheme}"
                        if not only or only & {name, picture}:
                            page.screenshot(path=folder / f"{picture}.png", full_page=True)
                            taken += 1
    print(f"{taken} pictures in {folder}")


def _shown(
    browser: "Browser", address: str, paths: dict[str, str], person: str | None, scheme: str, width: int
) -> Iterator[tuple[str, "Page"]]:
    """Each page, drawn to its end."""
    from playwright.sync_api import expect

    from tests.e2e.browser import sign_in

    context = browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme="dark" if scheme == "dark" else "light",
    )
    page = context.new_page()
    page.on(
        "console",
        lambda said: print(f"{page.url}: {said.type}: {said.text}") if said.type == "error" else None,
    )
    page.on("pageerror", lambda error: print(f"{page.url}: {error}"))
    if person:
        sign_in(page, address, person)
    for name, path in paths.items():
        page.goto(address + path)
        for charts in page.locator("[data-charts]:visible").all():  # what is folded up is not drawn yet
            charts.scroll_into_view_if_needed()
        expect(page.locator(".chart-waits:visible", has_text="Loading")).to_have_count(0, timeout=20_000)
        page.wait_for_timeout(500)
        page.evaluate("window.scrollTo(0, 0)")
        yield name, page
    context.close()


def main() -> None:
    arguments = sys.argv[1:]
    folder = Path(arguments[0]) if arguments else FOLDER
    with tempfile.TemporaryDirectory(prefix="crpbot-screenshots-") as state:
        os.environ["CRPBOT_STATE_DIR"] = state
        os.environ |= {"CRPBOT_MACHINE_REGION": "us-east-1", "CRPBOT_MACHINE_TEMPLATE": "crpbot-worker"}
        os.environ["DJANGO_SETTINGS_MODULE"] = "crpbot.settings"
        import django
        from django.core.management import call_command

        django.setup()
        call_command("migrate", verbosity=0)
        take(folder, set(arguments[1:]))


if __name__ == "__main__":
    main()
