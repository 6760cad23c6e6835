"""The report in Chromium: its page, and the saved file without a network; a policy proposed and adopted."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import ConsoleMessage, Page, expect

from gates.models import GatePolicy
from gates.services.policies import policy_in_force
from tests import scenarios
from tests.e2e.browser import BROWSER_MARKS, chromium, open_signed_in

pytestmark = BROWSER_MARKS


@pytest.fixture
def report_url(service_url: str) -> str:
    """The address of a service where a release awaits approval."""
    scenarios.awaiting_approval()
    return service_url


@pytest.mark.long
def test_the_report_and_its_saved_file_draw_charts(report_url: str, tmp_path: Path) -> None:
    with chromium() as browser:
        page = open_signed_in(browser, report_url, "anna")
        page.get_by_role("link", name="Report", exact=True).click()
        _expect_report(page)
        with page.expect_download() as download:
            page.get_by_role("link", name="Save as one file").click()
        saved = tmp_path / "report.html"
        download.value.save_as(saved)

        alone = browser.new_context(offline=True).new_page()
        requested: list[str] = []
        alone.on("request", lambda request: requested.append(request.url))
        alone.on("pageerror", lambda error: pytest.fail(f"in the saved file: {error}"))
        alone.on("console", _fail_on_error)
        alone.goto(saved.as_uri())
        _expect_report(alone)
        assert [url for url in requested if not url.startswith(("file:", "data:"))] == []


def _fail_on_error(message: ConsoleMessage) -> None:
    if message.type == "error":
        pytest.fail(f"in the saved file: {message.text}")


def _expect_report(page: Page) -> None:
    expect(page.get_by_text("Of the five V6 failures four are fixed (1, 2, 3 and 4)")).to_be_visible()
    expect(page.get_by_role("row", name=re.compile("Logit explosion"))).to_contain_text("−12,527 … +9,301")
    page.locator("summary", has_text="BTC: charts").scroll_into_view_if_needed()
    for side in ("before", "after"):
        expect(page.locator(f"[data-chart={side}-logits] .barlayer .trace").first).to_be_visible(
            timeout=20_000
        )
    page.locator("summary", has_text="SOL: charts").click()
    expect(page.locator("[data-chart=after-skill] .scatterlayer .trace").nth(1)).to_be_visible(timeout=20_000)
    page.get_by_text("Passed by both for every coin:").click()
    expect(page.get_by_role("rowheader", name=re.compile("^finite weights"))).to_be_visible()


@pytest.mark.long
def test_one_approver_proposes_a_policy_and_another_adopts_it(report_url: str) -> None:
    with chromium() as browser:
        anna = open_signed_in(browser, report_url, "anna")
        anna.get_by_role("link", name="Policies").click()
        anna.get_by_role("link", name="Propose a policy").click()
        for gate in ("accuracy", "latency"):
            anna.locator("summary", has_text=gate).first.click()
        anna.locator("[id='id_accuracy.above']").fill("0.6")
        anna.locator("[id='id_latency.role']").select_option("required")
        anna.get_by_label("Reason").fill("a calm market")
        anna.get_by_role("button", name="Propose").click()
        expect(anna.get_by_role("row", name=re.compile("accuracy above 0.65 0.6 looser"))).to_be_visible()
        expect(
            anna.get_by_role("row", name=re.compile("latency gate advisory required stricter"))
        ).to_be_visible()
        expect(anna.get_by_text("Another approver must adopt it")).to_be_visible()

        arthur = open_signed_in(browser, report_url, "arthur")
        arthur.goto(anna.url)
        arthur.locator("summary", has_text="Adopt").click()
        arthur.get_by_label("Reason").fill("agreed, for a week")
        arthur.get_by_role("button", name="Adopt policy").click()
        expect(arthur.get_by_text("The policy in force is weaker than the baseline.")).to_be_visible()
    assert policy_in_force() == GatePolicy.objects.latest("number")
