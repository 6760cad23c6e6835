"""A release from launch to approval in Chromium, with a real web process, training and measurement."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from deploy.pointer import pointer
from deploy.releases import decide
from deploy.releases.launch import launch
from deploy.rules import Purpose, ReleaseState
from tests import factories, scenarios
from tests.e2e.browser import BROWSER_MARKS, chromium, open_signed_in
from tests.processes import StartWorker, start, wait_until
from training.services import datasets

# A simulated market on which every coin passes every gate by more than a point.
BARS, DRIFT, SEED = 14_000, 1.7, 10
# Slow enough that progress is seen on a fast machine.
SETTINGS = {"Epochs": "14", "Batch size": "16", "Seed": "0"}
TRAINED_MS = 240_000
pytestmark = BROWSER_MARKS


@pytest.fixture
def training_service_url(service_url: str, start_worker: StartWorker, tmp_path: Path) -> Iterator[str]:
    """The same service with datasets, a worker and reconcile."""
    for coin in scenarios.coins():
        datasets.simulate_candles(coin, bars=BARS, drift=DRIFT, seed=SEED, actor=scenarios.LAUNCHER)
    start_worker("training,gates", name="worker")
    reconcile = start(sys.executable, "manage.py", "reconcile", log=tmp_path / "reconcile.log")
    _register_trained_fallback()
    yield service_url
    reconcile.stop()


def _register_trained_fallback() -> None:
    """A trained v5: the skill of a candidate is measured against it."""
    release = launch("v5", actor=scenarios.LAUNCHER, purpose=Purpose.FALLBACK)

    def is_on_standby() -> bool:
        release.status.refresh_from_db()
        return release.state == ReleaseState.STANDBY

    wait_until(is_on_standby, what="the fallback on standby", seconds=180)
    decide.register_fallback(release, actor=scenarios.APPROVER, reason="trained on these very candles")


@pytest.mark.long
def test_an_open_page_refreshes_and_keeps_the_input(service_url: str) -> None:
    with chromium() as browser:
        page = open_signed_in(browser, service_url, "anna")
        page.locator("summary", has_text="Pin the fallback").click()
        page.get_by_label("Reason").type("it beh")
        _launch(open_signed_in(browser, service_url, "olivia"))
        expect(page.locator("section", has_text="Candidate").first).to_contain_text(
            "building", timeout=20_000
        )
        page.keyboard.type("aves oddly")
        expect(page.get_by_label("Reason")).to_have_value("it behaves oddly")
        page.context.set_offline(True)
        expect(page.get_by_text("The service does not answer")).to_be_visible(timeout=20_000)
        page.context.set_offline(False)
        expect(page.get_by_text("The service does not answer")).to_be_hidden(timeout=20_000)
        expect(page.get_by_label("Reason")).to_have_value("it behaves oddly")
        page.context.clear_cookies()
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible(timeout=20_000)


def test_candles_are_checked_before_they_are_imported(service_url: str, tmp_path: Path) -> None:
    header, *rows = factories.candle_csv(4).decode().splitlines()
    (tmp_path / "newest-first.csv").write_text("\n".join([header, *reversed(rows)]))
    (tmp_path / "bad.json").write_text('{"error": "not found"}')
    with chromium() as browser:
        page = open_signed_in(browser, service_url, "olivia")
        page.goto(f"{service_url}/datasets/")
        page.locator("#id_file").set_input_files(tmp_path / "bad.json")
        page.get_by_role("button", name="Check").click()
        expect(page.locator("#preview")).to_contain_text("this is JSON of another shape")
        expect(page.get_by_role("button", name="Import")).to_have_count(0)
        page.locator("#id_file").set_input_files(tmp_path / "newest-first.csv")
        expect(page.locator("#preview")).to_be_empty()
        page.get_by_role("button", name="Check").click()
        expect(page.locator("#preview")).to_contain_text("sorted: the newest row was first")
        page.get_by_role("button", name="Import").click()
        expect(page.get_by_text("Added dataset")).to_be_visible()
        expect(page.locator("dl.facts").first).to_contain_text("sorted: the newest row was first")
        expect(
            page.locator("[data-chart=price] .candlesticklayer, [data-chart=price] .boxlayer").first
        ).to_be_attached()
        with page.expect_download() as saved:
            page.get_by_role("link", name="Parquet").click()
        assert saved.value.suggested_filename.endswith(".parquet")


@pytest.mark.long
def test_a_release_is_launched_followed_and_approved(training_service_url: str) -> None:
    service_url = training_service_url
    with chromium() as browser:
        viewer = open_signed_in(browser, service_url, "victor")
        expect(viewer.locator("section", has_text="Live now").first).to_contain_text("v6_enhanced")

        operator = open_signed_in(browser, service_url, "olivia")
        release = _launch(operator)
        _expect_epochs(operator, release)
        _expect_learning_curves(operator)
        operator.goto(release)
        expect(operator.get_by_text("48 of 48 gates passed")).to_be_visible(timeout=TRAINED_MS)
        expect(operator.get_by_role("button", name="Approve release")).to_have_count(0)

        _approve(open_signed_in(browser, service_url, "anna"))

        # The board of the viewer refreshed itself.
        live = viewer.locator("section", has_text="Live now").first
        expect(live).to_contain_text("v7_fixed", timeout=20_000)
        expect(live).to_contain_text("anna, from v6_enhanced")
        expect(live).to_contain_text("every gate passed, I looked at the charts")
    now = pointer.get_current()
    assert now is not None and now.release is not None
    assert (now.revision, now.kind, now.release.line, now.moved_by) == (2, "swap", "v7_fixed", "anna")


def _launch(page: Page) -> str:
    """Fill in the form and launch; the address of the release."""
    page.get_by_role("link", name="Releases").click()
    page.get_by_role("link", name="Launch a release").click()
    estimate = page.locator("#estimate")
    expect(estimate).to_contain_text("$")
    before = estimate.inner_text()
    for label, value in SETTINGS.items():
        page.get_by_label(label).fill(value)
    expect(estimate).not_to_have_text(before)
    page.get_by_role("button", name="Launch").click()
    page.wait_for_url(re.compile(r"/releases/\d+/$"))
    expect(page.get_by_text("Launched release")).to_be_visible()
    return page.url


def _expect_epochs(page: Page, release: str) -> None:
    """The bar of the first coin moves without a reload of the page."""
    page.evaluate("window.isTheSamePage = true")
    bar = page.get_by_role("progressbar", name="BTC: epochs done")
    expect(bar).to_be_visible(timeout=TRAINED_MS)
    expect(bar).not_to_have_attribute("value", "0", timeout=TRAINED_MS)
    seen = bar.get_attribute("value")
    expect(page.locator(f"progress[aria-label='BTC: epochs done'][value='{seen}']")).to_have_count(
        0, timeout=TRAINED_MS
    )
    assert page.evaluate("window.isTheSamePage") is True


def _expect_learning_curves(page: Page) -> None:
    """The learning curves of a run are drawn, and its log has lines."""
    page.get_by_role("link", name=re.compile(r"^run \d+$")).first.click()
    page.wait_for_url(re.compile(r"/runs/\d+/$"))
    expect(page.locator("[data-chart=loss] .scatterlayer .trace").first).to_be_attached(timeout=TRAINED_MS)
    expect(page.locator("[data-chart=accuracy] .scatterlayer .trace").first).to_be_attached()
    expect(page.get_by_role("log")).to_contain_text("epoch")


def _approve(page: Page) -> None:
    page.get_by_role("link", name="Review and decide").click()
    for coin in scenarios.COINS:
        expect(page.get_by_role("heading", name=coin).first).to_be_visible()
    page.locator("summary", has_text="Approve").click()
    page.get_by_role("button", name="Approve release").click()
    expect(page.get_by_text("Give a reason: it is recorded in the audit history.")).to_be_visible()
    page.get_by_label("Reason").first.fill("every gate passed, I looked at the charts")
    page.get_by_role("button", name="Approve release").click()
    expect(page.get_by_text("Approved: every bot must run v7_fixed")).to_be_visible()
