"""What holds for every page: access, content security policy, links, labels, number of queries."""

import re
from typing import Any

import pytest
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

from audit.models import AuditEvent, AuditHead
from tests.long_tests import long_except
from tests.pages.conftest import SignedIn
from tests.pages.document import Document
from tests.pages.example_data import ExampleData

pytestmark = pytest.mark.django_db

ROLES = {"viewer": "victor", "operator": "olivia", "approver": "anna"}
PAGES = {
    "board": "/",
    "board with the live gates": "/?gates=live",
    "launch": "/launch/",
    "launch of another line": "/launch/?line=v5",
    "launch of no line there is": "/launch/?line=v99",
    "estimate": "/launch/estimate/?line=v7_fixed&purpose=candidate&seed=1",
    "releases": "/releases/",
    "releases in one state": "/releases/?state=rejected",
    "releases in no state there is": "/releases/?state=strange&page=77",
    "release being built": "/releases/{building}/",
    "release to decide": "/releases/{awaiting}/",
    "release rejected": "/releases/{rejected}/",
    "release rolled back": "/releases/{inherited}/",
    "release registered as fallback": "/releases/{fallback}/",
    "report": "/releases/{awaiting}/report/",
    "report against another release": "/releases/{rejected}/report/?against={fallback}",
    "report of the first release": "/releases/{inherited}/report/",
    "runs": "/runs/",
    "runs in one state": "/runs/?state=failed",
    "runs of a tag, by loss": "/runs/?tag=wide&ordering=loss&purpose=neither&search=wider",
    "runs of no line there is": "/runs/?line=v99&ordering=strange",
    "runs compared": "/runs/compare/?run={running_run}&run={failed_run}",
    "trials of a study": "/runs/?study={study}",
    "studies": "/studies/",
    "studies in one state": "/studies/?state=failed",
    "launching a study": "/studies/launch/",
    "launching a study of another line": "/studies/launch/?line=v5",
    "study": "/studies/{study}/",
    "run under way": "/runs/{running_run}/",
    "run that failed": "/runs/{failed_run}/",
    "bots": "/bots/",
    "bots in one state": "/bots/?state=current",
    "bots in a state none is in": "/bots/?state=behind",
    "bots in no state there is": "/bots/?state=tired&page=77",
    "retiring a bot": "/bots/{bot}/retire/",
    "keys": "/bots/keys/",
    "bundles": "/bundles/",
    "coins": "/coins/",
    "lines": "/lines/",
    "a line of another recipe": "/lines/?recipe_name=v5",
    "datasets": "/datasets/",
    "dataset": "/datasets/{dataset}/",
    "diagnosis": "/diagnoses/{diagnosis}/",
    "policies": "/policies/",
    "policy": "/policies/1/",
    "the policy after it": "/policies/2/",
    "draft of a policy": "/policies/drafts/real-markets/",
    "proposing a policy": "/policies/propose/",
    "proposing an older policy": "/policies/propose/?from=1",
    "workers": "/workers/",
    "machines": "/machines/",
    "backups": "/backups/",
    "tokens": "/tokens/",
    "own account": "/account/",
    "glossary": "/glossary/",
    "features": "/features/",
    "runbook": "/runbooks/fallback.html",
}
FIGURES = {
    "release's charts": "/releases/{rejected}/charts/SOL/",
    "live charts": "/releases/{fallback}/live/BTC/",
    "live charts of what exploded": "/releases/{inherited}/live/BTC/",
    "live charts of what no bot ever ran": "/releases/{rejected}/live/SOL/",
    "report's charts": "/releases/{awaiting}/report/charts/BTC/",
    "report as a file": "/releases/{awaiting}/report/file/",
    "diagnosis's charts": "/diagnoses/{diagnosis}/charts/",
    "charts of compared runs": "/runs/compare/charts/?run={running_run}&run={failed_run}",
    "study's charts": "/studies/{study}/charts/",
    "run's charts": "/runs/{running_run}/charts/",
    "dataset's charts": "/datasets/{dataset}/charts/",
    "dataset as CSV": "/datasets/{dataset}/candles.csv",
}
MOST_QUERIES = 54


def address(pattern: str, examples: ExampleData) -> str:
    return pattern.format(**{name: getattr(value, "pk", value) for name, value in vars(examples).items()})


def visit(client: Client, path: str) -> Any:
    """The answer, read to its end: that closes the file of a download."""
    answer: Any = client.get(path)
    answer.getvalue()
    return answer


@pytest.mark.slow
@pytest.mark.parametrize("role", long_except(ROLES, "viewer".__eq__))
def test_every_role_sees_every_page(role: str, examples: ExampleData, signed_in: SignedIn) -> None:
    client = signed_in(ROLES[role])
    answers = {
        name: visit(client, address(path, examples)).status_code for name, path in (PAGES | FIGURES).items()
    }
    assert set(answers.values()) == {200}, answers


def test_every_page_needs_a_sign_in(examples: ExampleData, client: Client) -> None:
    for path in (PAGES | FIGURES).values():
        answer = visit(client, address(path, examples))
        assert answer.status_code == 302, path
        assert answer["Location"].startswith("/sign-in/?next=/"), path


def test_without_a_role_every_page_says_to_ask_for_one(examples: ExampleData, signed_in: SignedIn) -> None:
    client = signed_in("norma")
    for path in (PAGES | FIGURES).values():
        answer = visit(client, address(path, examples))
        assert answer.status_code == 403, path
        assert "Ask the operator of the service" in answer.content.decode(), path


def test_without_a_role_one_can_sign_out(signed_in: SignedIn) -> None:
    client = signed_in("norma")
    assert 'action="/sign-out/"' in client.get("/").content.decode()
    assert client.post("/sign-out/")["Location"] == "/sign-in/"


@pytest.mark.slow
def test_reading_pages_changes_nothing(examples: ExampleData, signed_in: SignedIn) -> None:
    client = signed_in("ada")
    before = (AuditHead.objects.get().hash, AuditEvent.objects.count())
    for path in (PAGES | FIGURES).values():
        visit(client, address(path, examples))
    for action in ("approve", "decline", "restore", "cancel", "register"):
        assert client.get(f"/releases/{examples.awaiting.pk}/{action}/").status_code == 302
    for path in (
        "/pin/",
        f"/runs/{examples.running_run.pk}/cancel/",
        f"/runs/{examples.failed_run.pk}/again/",
        f"/runs/{examples.failed_run.pk}/annotate/",
        f"/studies/{examples.study.pk}/cancel/",
        "/policies/1/adopt/",
        f"/diagnoses/{examples.diagnosis.pk}/judge/",
    ):
        assert client.get(path).status_code == 302
    assert (AuditHead.objects.get().hash, AuditEvent.objects.count()) == before


@pytest.mark.slow
def test_pages_hold_no_inline_script_or_style(examples: ExampleData, signed_in: SignedIn) -> None:
    client = signed_in("ada")
    for name, path in PAGES.items():
        assert Document(client.get(address(path, examples)).content.decode()).inline == [], name


@pytest.mark.slow
def test_only_pages_with_charts_allow_inline_styles(examples: ExampleData, signed_in: SignedIn) -> None:
    client = signed_in("ada")
    for name, path in PAGES.items():
        answer = client.get(address(path, examples))
        policy = answer["Content-Security-Policy"]
        has_charts = "data-chart=" in answer.content.decode() or name == "release being built"
        assert ("style-src 'self' 'unsafe-inline'" in policy) == has_charts, name
        assert ("plotly.min.js" in answer.content.decode()) == has_charts, name
        assert "script-src 'self';" in policy and "default-src 'none'" in policy, name


@pytest.mark.slow
@pytest.mark.long
def test_every_link_works(examples: ExampleData, signed_in: SignedIn) -> None:
    client = signed_in("ada")
    found: set[str] = set()
    for path in PAGES.values():
        page = address(path, examples)
        links = Document(client.get(page).content.decode()).links
        found |= {page.partition("?")[0] + link if link.startswith("?") else link for link in links}
    inside = {link for link in found if not link.startswith("#")}
    assert all(link.startswith("/") for link in inside), inside
    assert not {link for link in inside if _status(client, link) >= 400}


def _status(client: Client, link: str) -> int:
    answer = client.get(link)
    if answer.streaming:
        b"".join(answer.streaming_content)  # type: ignore[attr-defined]  # a static file stays open until its end
    return answer.status_code


@pytest.mark.slow
def test_every_field_has_a_label_and_every_id_is_unique(examples: ExampleData, signed_in: SignedIn) -> None:
    client = signed_in("ada")
    for name, path in PAGES.items():
        page = Document(client.get(address(path, examples)).content.decode())
        assert len(page.ids) == len(set(page.ids)), (name, sorted(page.ids))
        for field in page.fields:
            assert field.get("id") in page.labelled or field.get("aria-label"), (name, field)


@pytest.mark.slow
def test_a_page_needs_few_queries(
    examples: ExampleData, signed_in: SignedIn, django_assert_max_num_queries: Any
) -> None:
    client = signed_in("ada")
    for path in PAGES.values():
        with django_assert_max_num_queries(MOST_QUERIES):
            client.get(address(path, examples))


def test_every_page_is_in_this_list(examples: ExampleData) -> None:
    known = [re.sub(r"\{\w+\}", "1", path).partition("?")[0] for path in (PAGES | FIGURES).values()]
    covered = {get_resolver().resolve(path).view_name for path in known}
    by_post_only = {
        "pin",
        "coin-change",
        "key-change",
        "dataset-withdraw",
        "dataset-check",
        "decide",
        "run-cancel",
        "run-again",
        "run-annotate",
        *("study-cancel", "study-release"),
        "policy-adopt",
        "diagnosis-judge",
        *("machine-start", "machine-stop", "machine-price", "machine-limit"),
    }
    without_role = {"sign-in", "sign-out", "healthz", "liveness"}
    in_tests_accounts = {
        *("account_login", "account_reauthenticate", "openid_connect_login", "openid_connect_callback"),
        *(
            "mfa_index",
            "mfa_authenticate",
            "mfa_reauthenticate",
            "mfa_reauthenticate_webauthn",
            "mfa_list_webauthn",
        ),
        *(
            "mfa_activate_totp",
            "mfa_deactivate_totp",
            "mfa_add_webauthn",
            "mfa_remove_webauthn",
            "session-end",
        ),
        *("mfa_view_recovery_codes", "mfa_generate_recovery_codes"),
    }
    assert _own_names() == covered | by_post_only | without_role | in_tests_accounts


def _own_names() -> set[str]:
    """The names of all our own pages: the admin and the API have their tests elsewhere."""
    names: set[str] = set()
    for entry in get_resolver().url_patterns:
        if isinstance(entry, URLPattern):
            names.add(str(entry.name))
        elif isinstance(entry, URLResolver) and not entry.namespace:
            names |= {str(page.name) for page in entry.url_patterns if isinstance(page, URLPattern)}
    return names


@pytest.mark.parametrize(
    "path",
    [
        "/releases/9999/",
        f"/releases/{'9' * 20}/charts/BTC/",
        "/releases/9999/report/",
        "/runs/9999/",
        "/datasets/9999/",
        "/diagnoses/9999/",
        "/policies/9999/",
        "/nowhere/",
    ],
)
def test_a_missing_page_is_a_404_in_the_usual_layout(path: str, signed_in: SignedIn) -> None:
    answer = signed_in("victor").get(path)
    assert answer.status_code == 404
    assert "Page not found" in answer.content.decode() and 'aria-label="Pages"' in answer.content.decode()


def test_a_form_from_another_site_is_refused_with_a_reason(signed_in: SignedIn) -> None:
    client = signed_in("anna")
    client.handler.enforce_csrf_checks = True
    answer = client.post("/pin/", {"reason": "from another site"})
    assert answer.status_code == 403 and "Form not accepted" in answer.content.decode()


def test_a_server_error_has_the_usual_layout(settings: Any, signed_in: SignedIn) -> None:
    client = signed_in("victor")
    client.raise_request_exception = False
    settings.ROOT_URLCONF = "tests.pages.broken_urls"
    answer = client.get("/broken/")
    assert answer.status_code == 500
    assert "Server error" in answer.content.decode() and Document(answer.content.decode()).inline == []


def test_datasets_show_their_runs_and_coins_their_datasets(
    examples: ExampleData, signed_in: SignedIn
) -> None:
    client = signed_in("victor")
    page = client.get("/datasets/").context["page"]
    assert {row.pk: row.run_count for row in page} == {row.pk: row.runs.count() for row in page}
    assert any(row.run_count for row in page) and not all(row.run_count for row in page)
    coins = [row["coin"] for row in client.get("/coins/").context["coins"]]
    assert [coin.dataset_count for coin in coins] == [coin.datasets.count() for coin in coins]
    assert any(coin.dataset_count for coin in coins)
