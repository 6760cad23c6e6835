"""Forms: valid input does what it says; invalid input is kept and shown with the error."""

import html
import re
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import load_command_class
from django.http import HttpResponse, HttpResponseBase
from django.utils.html import escape

from audit.models import AuditEvent
from common.formatting import format_state
from deploy.models import PointerMove, Release
from deploy.pointer import pointer
from deploy.views import reports
from gates.catalogue.live import DEFAULT_LIVE
from gates.catalogue.registry import BASELINE_NAMES, GATES
from gates.models import Diagnosis, GatePolicy
from gates.policy import DRAFTS
from gates.policy_changes import explain_draft
from gates.services import policies
from gates.services.policies import policy_in_force
from tests import factories, hostile_candles, model_files
from tests.pages import example_data
from tests.pages.conftest import SignedIn
from tests.pages.example_data import ExampleData
from training.forms import ImportModelForm
from training.models import Dataset, TrainingRun

pytestmark = pytest.mark.django_db

LAUNCH = {"line": "v7_fixed", "purpose": "candidate", "seed": "3", "epochs": "5", "batch_size": "64"}


def text(answer: HttpResponseBase) -> str:
    assert isinstance(answer, HttpResponse)
    return answer.content.decode()


def words(answer: HttpResponseBase) -> str:
    """What a person reads, in one line."""
    return html.unescape(" ".join(re.sub(r"<[^>]+>", " ", text(answer)).split()))


def messages_of(answer: Any) -> list[str]:
    """The messages of the page an action led to."""
    return [str(message) for message in answer.context["messages"]]


class TestSigningIn:
    def test_redirects_to_the_requested_page(self, examples: ExampleData, client: Any) -> None:
        answer = client.post(
            "/sign-in/", {"username": "victor", "password": factories.PASSWORD, "next": "/releases/"}
        )
        assert (answer.status_code, answer["Location"]) == (302, "/releases/")

    def test_never_redirects_to_another_site(self, examples: ExampleData, client: Any) -> None:
        answer = client.post(
            "/sign-in/",
            {"username": "victor", "password": factories.PASSWORD, "next": "https://elsewhere.example/"},
        )
        assert answer["Location"] == "/"

    def test_a_wrong_password_and_a_wrong_name_get_the_same_answer(
        self, examples: ExampleData, client: Any, db: None
    ) -> None:
        answers = [
            client.post("/sign-in/", {"username": n, "password": "wrong"}) for n in ("victor", "nobody-here")
        ]
        assert [answer.status_code for answer in answers] == [400, 400]
        assert all("Wrong name or password" in text(answer) for answer in answers)
        assert 'value="victor"' in text(answers[0]) and "wrong" not in text(answers[0])


class TestLaunching:
    def test_creates_a_release_with_the_changed_parameters(
        self, examples: ExampleData, signed_in: SignedIn
    ) -> None:
        answer = signed_in("olivia").post("/launch/", LAUNCH, follow=True)
        release = Release.objects.latest("id")
        assert (release.line, release.seed, release.parameters) == ("v7_fixed", 3, {"epochs": 5})
        assert release.launched_by == "olivia"
        assert f"Launched release {release.pk}" in messages_of(answer)[0]

    def test_creates_a_release_with_other_settings_and_says_what_it_predicts(
        self, examples: ExampleData, signed_in: SignedIn
    ) -> None:
        asked = {"horizon": "24", "label": "percent", "cut": "0.5", "input": "window64", "fit_percent": "70"}
        answer = signed_in("olivia").post("/launch/", {**LAUNCH, **asked}, follow=True)
        release = Release.objects.latest("id")
        changed = {"horizon": 24, "label": "percent", "cut": 0.5, "input": "window64"}
        assert release.parameters == {"epochs": 5, **changed}
        assert "Predicts a move of 0.5 % over 24 bars, from window64" in words(answer)

    def test_shows_the_settings_where_one_of_them_was_refused(
        self, examples: ExampleData, signed_in: SignedIn
    ) -> None:
        answer = signed_in("olivia").post("/launch/", {**LAUNCH, "label": "barriers"})
        assert answer.status_code == 400 and "needs a cut from 0.1 to 10" in words(answer)
        assert '<details class="contract" open>' in text(answer)
        fresh = text(signed_in("olivia").get("/launch/?line=v7_fixed"))
        assert '<details class="contract">' in fresh
        assert '<details class="contract"' not in text(signed_in("olivia").get("/launch/?line=v5"))

    def test_an_input_that_is_not_offered_stays_selected_after_an_error(
        self, examples: ExampleData, signed_in: SignedIn
    ) -> None:
        answer = signed_in("olivia").post("/launch/", {**LAUNCH, "input": "window100", "epochs": "0"})
        assert answer.status_code == 400
        assert '<option value="window100" selected>' in text(answer)
        refused = signed_in("olivia").post("/launch/", {**LAUNCH, "input": "window8"})
        assert refused.status_code == 400 and '<option value="window8"' not in text(refused)

    def test_uses_the_chosen_dataset(self, examples: ExampleData, signed_in: SignedIn) -> None:
        older = Dataset.objects.filter(coin__symbol="BTC", is_simulated=True).earliest("id")
        signed_in("olivia").post("/launch/", {**LAUNCH, "dataset_BTC": str(older.pk)})
        assert Release.objects.latest("id").coins.get(coin__symbol="BTC").dataset == older

    @pytest.mark.parametrize(
        ("field", "value", "problem"),
        [
            ("epochs", "0", "greater than or equal to 1"),
            ("epochs", "51", "less than or equal to 50"),
            ("epochs", "many", "whole number"),
            ("batch_size", "15", "greater than or equal to 16"),
            ("batch_size", "nan", "whole number"),
            ("learning_rate", "nan", "number"),
            ("learning_rate", "7", "less than or equal to 0.01"),
            ("horizon", "97", "less than or equal to 96"),
            ("input", "window8", "not one of the available choices"),
            ("label", "quartiles", "not one of the available choices"),
            ("hidden_widths", "256", "three widths from 8 to 1,024"),
            ("fit_percent", "80", "the gate window would be 5 %"),
            ("seed", "-1", "greater than or equal to 0"),
            ("seed", str(2**31), "less than or equal to"),
            ("purpose", "inherited", "not one of the available choices"),
            ("line", "v99", "not one of the available choices"),
            ("dataset_BTC", "999999", "not one of the available choices"),
        ],
    )
    def test_keeps_the_input_and_shows_the_error(
        self, field: str, value: str, problem: str, examples: ExampleData, signed_in: SignedIn
    ) -> None:
        before = Release.objects.count()
        answer = signed_in("olivia").post("/launch/", {**LAUNCH, "seed": "77", field: value})
        assert answer.status_code == 400
        assert problem in text(answer)
        assert Release.objects.count() == before
        if field != "seed":
            assert 'value="77"' in text(answer)

    def test_refuses_another_coins_candles(self, examples: ExampleData, signed_in: SignedIn) -> None:
        another = Dataset.objects.filter(coin__symbol="ETH").earliest("id")
        answer = signed_in("olivia").post("/launch/", {**LAUNCH, "dataset_BTC": str(another.pk)})
        assert answer.status_code == 400

    @pytest.mark.parametrize("name", ["victor", "anna"])
    def test_needs_an_operator(self, name: str, examples: ExampleData, signed_in: SignedIn) -> None:
        before = Release.objects.count()
        answer = signed_in(name).post("/launch/", LAUNCH)
        assert answer.status_code == 403
        assert "that needs the operator role" in text(answer)
        assert Release.objects.count() == before

    def test_shows_an_estimate_of_the_input(self, examples: ExampleData, signed_in: SignedIn) -> None:
        client = signed_in("olivia")
        few, many = (
            client.get("/launch/estimate/", {**LAUNCH, "epochs": n}).context["estimate"] for n in (5, 50)
        )
        assert many.seconds > few.seconds and many.usd > few.usd

    def test_shows_why_there_is_no_estimate(self, examples: ExampleData, signed_in: SignedIn) -> None:
        answer = signed_in("olivia").get("/launch/estimate/", {**LAUNCH, "epochs": "51"})
        assert "less than or equal to 50" in text(answer)

    def test_choosing_another_line_keeps_seed_and_datasets(
        self, examples: ExampleData, signed_in: SignedIn
    ) -> None:
        older = Dataset.objects.filter(coin__symbol="BTC").earliest("id")
        typed = {**LAUNCH, "line": "v5", "seed": "77", "dataset_BTC": str(older.pk)}
        answer = signed_in("olivia").get("/launch/", typed, headers={"HX-Request": "true"})
        form = answer.context["form"]
        assert form["seed"].value() == "77" and form["dataset_BTC"].value() == str(older.pk)
        assert form["purpose"].value() == "fallback" and "epochs" not in form.fields
        assert "<html" not in text(answer)

    def test_offers_the_parameters_of_the_line(self, examples: ExampleData, signed_in: SignedIn) -> None:
        client = signed_in("olivia")
        assert 'name="epochs"' in text(client.get("/launch/?line=v7_fixed"))
        v5 = text(client.get("/launch/?line=v5"))
        assert 'name="epochs"' not in v5 and "trains to convergence" in v5


class TestDeciding:
    def test_approving_moves_the_pointer(self, examples: ExampleData, signed_in: SignedIn) -> None:
        revision = _revision()
        answer = signed_in("anna").post(
            f"/releases/{examples.awaiting.pk}/approve/",
            {"reason": "all passed", "revision": revision},
            follow=True,
        )
        now = pointer.get_current()
        assert now and (now.revision, now.release, now.moved_by) == (revision + 1, examples.awaiting, "anna")
        assert messages_of(answer) == [
            f"Approved: every bot must run v7_fixed of release {examples.awaiting.pk} (revision {revision + 1})."
        ]

    @pytest.mark.parametrize(
        ("other", "says"),
        [
            ("the same", "Its bundles are the files that the bots run already"),
            ("another", "The bots run the same bundle already for BTC."),
        ],
    )
    def test_files_that_the_bots_run_already_are_named_where_it_is_decided(
        self,
        other: str,
        says: str,
        examples: ExampleData,
        signed_in: SignedIn,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        page = f"/releases/{examples.awaiting.pk}/"
        assert "the bots run already" not in words(signed_in("anna").get(page))

        def digests(release: Release) -> dict[str, str]:
            own = "the same" if other == "the same" else str(release.pk)
            return {"BTC": "the same", "ETH": own, "SOL": own}

        monkeypatch.setattr(Release, "digests", property(digests))
        assert says in words(signed_in("anna").get(page))

    def test_a_newer_policy_is_previewed_before_the_approval(
        self, examples: ExampleData, signed_in: SignedIn
    ) -> None:
        document = policy_in_force().document
        document["gates"]["accuracy"]["above"] = 0.9
        approvers = [factories.actor(name, "approver") for name in ("ursula", "vera")]
        proposed = policies.propose_policy(document, actor=approvers[0], reason="more is wanted")
        policies.adopt_policy(proposed, actor=approvers[1], reason="agreed")
        page = text(signed_in("anna").get(f"/releases/{examples.awaiting.pk}/"))
        says = f"fails under policy {proposed.number}"
        assert says in page and "An approval evaluates the stored" in page
        assert "<li>BTC accuracy failed: " in page
        assert says in text(signed_in("victor").get("/"))
        answer = signed_in("victor").get(f"/api/v1/releases/{examples.awaiting.pk}/").json()["policy_preview"]
        assert (answer["policy"], answer["passes"]) == (proposed.number, False)
        assert answer["problems"][0].startswith("BTC accuracy failed: ")

    def test_the_form_contains_the_revision_of_the_page(
        self, examples: ExampleData, signed_in: SignedIn
    ) -> None:
        page = text(signed_in("anna").get(f"/releases/{examples.awaiting.pk}/"))
        assert f'<input type="hidden" name="revision" value="{_revision()}">' in page

    def test_an_approval_at_an_old_revision_is_refused_and_keeps_the_reason(
        self, examples: ExampleData, signed_in: SignedIn
    ) -> None:
        now = _revision()
        answer = signed_in("anna").post(
            f"/releases/{examples.awaiting.pk}/approve/",
            {"reason": "all passed, I looked", "revision": now - 1},
        )
        assert answer.status_code == 409
        assert f"you saw revision {now - 1}, it is {now}" in text(answer)
        assert "all passed, I looked" in text(answer)
        assert f'name="revision" value="{now}"' in text(answer)
        assert _revision() == now

    @pytest.mark.parametrize("action", ["approve", "decline"])
    def test_needs_a_reason(self, action: str, examples: ExampleData, signed_in: SignedIn) -> None:
        answer = signed_in("anna").post(
            f"/releases/{examples.awaiting.pk}/{action}/", {"reason": " ", "revision": _revision()}
        )
        assert answer.status_code == 400
        assert "Give a reason: it is recorded in the audit history." in text(answer)
        assert Release.objects.get(pk=examples.awaiting.pk).state == "awaiting_approval"

    @pytest.mark.parametrize("name", ["victor", "olivia"])
    @pytest.mark.parametrize("action", ["approve", "decline"])
    def test_needs_an_approver(
        self, action: str, name: str, examples: ExampleData, signed_in: SignedIn
    ) -> None:
        path = f"/releases/{examples.awaiting.pk}/"
        client = signed_in(name)
        assert f'action="{path}{action}/"' not in text(client.get(path))
        answer = client.post(f"{path}{action}/", {"reason": "I want it", "revision": _revision()})
        assert answer.status_code == 403
        assert "that needs the approver role" in text(answer) and "I want it" in text(answer)

    def test_declining_declines_the_release(self, examples: ExampleData, signed_in: SignedIn) -> None:
        answer = signed_in("arthur").post(
            f"/releases/{examples.awaiting.pk}/decline/", {"reason": "not today"}, follow=True
        )
        assert messages_of(answer) == [f"Declined release {examples.awaiting.pk}."]
        assert Release.objects.get(pk=examples.awaiting.pk).state == "declined"

    def test_the_launcher_cannot_approve(self, examples: ExampleData, signed_in: SignedIn) -> None:
        client = signed_in("ada")
        client.post("/launch/", LAUNCH)
        mine = Release.objects.latest("id")
        answer = client.post(f"/releases/{mine.pk}/approve/", {"reason": "mine", "revision": _revision()})
        assert answer.status_code == 403 and "it takes another person" in text(answer)

    def test_cancelling_ends_a_release_being_built(self, examples: ExampleData, signed_in: SignedIn) -> None:
        answer = signed_in("olivia").post(
            f"/releases/{examples.building.pk}/cancel/", {"reason": "wrong seed"}, follow=True
        )
        assert messages_of(answer) == [f"Cancelled release {examples.building.pk}."]
        assert Release.objects.get(pk=examples.building.pk).state == "rejected"

    def test_an_unknown_action_is_a_404(self, examples: ExampleData, signed_in: SignedIn) -> None:
        assert (
            signed_in("anna").post(f"/releases/{examples.awaiting.pk}/explode/", {"reason": "x"}).status_code
            == 404
        )

    def test_a_settled_release_cannot_be_approved(self, examples: ExampleData, signed_in: SignedIn) -> None:
        answer = signed_in("anna").post(
            f"/releases/{examples.rejected.pk}/approve/", {"reason": "please", "revision": _revision()}
        )
        assert answer.status_code == 409 and "it cannot be approved" in text(answer)

    def test_a_refused_decision_is_in_the_history(self, examples: ExampleData, signed_in: SignedIn) -> None:
        signed_in("victor").post(
            f"/releases/{examples.awaiting.pk}/approve/", {"reason": "me too", "revision": _revision()}
        )
        assert AuditEvent.objects.latest("seq").kind == "release.approve.refused"
        assert "approve refused" in text(signed_in("anna").get(f"/releases/{examples.awaiting.pk}/"))


class TestPinning:
    def test_switches_the_bots_to_the_fallback(self, examples: ExampleData, signed_in: SignedIn) -> None:
        example_data.approve(examples.awaiting)
        client = signed_in("anna")
        assert 'action="/pin/"' in text(client.get("/"))
        answer = client.post("/pin/", {"reason": "it behaves oddly"}, follow=True)
        now = pointer.get_current()
        assert now and (now.kind, now.release, now.reason) == ("pin", examples.fallback, "it behaves oddly")
        assert messages_of(answer) == [f"Pinned: every bot must run v5 (revision {now.revision})."]
        assert 'action="/pin/"' not in text(client.get("/"))

    def test_names_the_fallback_and_afterwards_the_way_back(
        self, examples: ExampleData, signed_in: SignedIn
    ) -> None:
        example_data.approve(examples.awaiting)
        anna = signed_in("anna")
        board = words(anna.get("/"))
        fallback = examples.fallback.pk
        assert f"Every bot moves to v5 , release {fallback}, at once. 3 of 3 bots hold its files" in board
        assert "Way back" not in board
        anna.post("/pin/", {"reason": "it trades oddly"})
        restorable = f"Way back v7_fixed, release {examples.awaiting.pk} was live before"
        assert restorable in words(anna.get("/"))

    def test_a_second_pin_is_refused(self, examples: ExampleData, signed_in: SignedIn) -> None:
        before = PointerMove.objects.count()
        answer = signed_in("anna").post("/pin/", {"reason": "again"})
        assert answer.status_code == 409 and "already" in text(answer)
        assert PointerMove.objects.count() == before

    @pytest.mark.parametrize("name", ["victor", "olivia"])
    def test_needs_an_approver(self, name: str, examples: ExampleData, signed_in: SignedIn) -> None:
        example_data.approve(examples.awaiting)
        client = signed_in(name)
        assert 'action="/pin/"' not in text(client.get("/"))
        answer = client.post("/pin/", {"reason": "I am afraid"})
        assert answer.status_code == 403 and "that needs the approver role" in text(answer)

    def test_needs_a_reason(self, examples: ExampleData, signed_in: SignedIn) -> None:
        example_data.approve(examples.awaiting)
        answer = signed_in("anna").post("/pin/", {})
        assert answer.status_code == 400 and "Give a reason" in text(answer)


class TestBundles:
    SAID = {"coin": "BTC", "line": "v5", "schema": "relative72", "interval_seconds": "3600"}

    def test_imports_a_model_and_shows_what_is_unknown(
        self, examples: ExampleData, signed_in: SignedIn
    ) -> None:
        file = _upload(model_files.onnx_file([model_files.LINEAR], model_files.linear_tensors()))
        answer = signed_in("olivia").post("/bundles/", {**self.SAID, "file": file}, follow=True)
        assert "Imported BTC v5 bundle" in messages_of(answer)[0] and "no scaler" in messages_of(answer)[0]
        assert "imported from" in text(answer) and "unknown" in text(answer)

    def test_every_field_is_on_the_page(self, examples: ExampleData, signed_in: SignedIn) -> None:
        page = signed_in("olivia").get("/bundles/").content.decode()
        assert [name for name in ImportModelForm.base_fields if f'name="{name}"' not in page] == []

    def test_no_line_is_offered_that_is_refused(self) -> None:
        widget = str(ImportModelForm()["line"])
        assert re.findall(r'value="(\w+)"', widget) == ["v7_fixed", "v5", "v6_enhanced"]

    def test_needs_the_feature_schema(self, examples: ExampleData, signed_in: SignedIn) -> None:
        answer = signed_in("olivia").post("/bundles/", {**self.SAID, "schema": "", "file": _upload(b"PK")})
        assert answer.status_code == 400 and "This field is required" in text(answer)

    def test_needs_an_operator(self, examples: ExampleData, signed_in: SignedIn) -> None:
        answer = signed_in("victor").post("/bundles/", {**self.SAID, "file": _upload(b"PK")})
        assert answer.status_code == 403 and "operator" in text(answer)


class TestDatasets:
    def test_adds_candles(self, examples: ExampleData, signed_in: SignedIn) -> None:
        answer = signed_in("olivia").post(
            "/datasets/", {"coin": "ETH", "file": _upload(factories.candle_csv())}, follow=True
        )
        dataset = Dataset.objects.latest("id")
        assert (dataset.coin.symbol, dataset.rows, dataset.origin) == ("ETH", 3, "eth.csv")
        added, warning = messages_of(answer)
        assert added == f"Added dataset {dataset.pk}, 3 bars of ETH."
        assert "did not pass" in warning and "No release can train on them" in warning

    def test_closing_times_are_converted_where_the_form_says_so(
        self, examples: ExampleData, signed_in: SignedIn
    ) -> None:
        client = signed_in("olivia")
        assert b'name="closing_times"' in client.get("/datasets/").content
        upload = {"coin": "ETH", "file": _upload(factories.candle_csv()), "closing_times": "on"}
        client.post("/datasets/", upload, follow=True)
        assert f"{Dataset.objects.latest('id').first_at:%H:%M}" == "23:00"

    def test_repeated_candles_are_taken_once_where_the_form_says_so(
        self, examples: ExampleData, signed_in: SignedIn
    ) -> None:
        client, count = signed_in("olivia"), Dataset.objects.count()
        header, *rows = factories.candle_csv(4).splitlines()
        data = b"\n".join([header, *rows, rows[-1]])
        refused = client.post("/datasets/", {"coin": "ETH", "file": _upload(data)})
        assert "say at the import that repeated candles are taken once" in text(refused)
        assert Dataset.objects.count() == count
        client.post("/datasets/", {"coin": "ETH", "file": _upload(data), "repeated_once": "on"})
        dataset = Dataset.objects.latest("id")
        assert (dataset.rows, Dataset.objects.count()) == (4, count + 1)
        assert "taken once: rows that repeat a candle, 5" in text(client.get(f"/datasets/{dataset.pk}/"))

    def test_the_same_candles_are_the_same_dataset(self, examples: ExampleData, signed_in: SignedIn) -> None:
        client = signed_in("olivia")
        client.post("/datasets/", {"coin": "ETH", "file": _upload(factories.candle_csv())})
        count = Dataset.objects.count()
        answer = client.post(
            "/datasets/", {"coin": "ETH", "file": _upload(factories.candle_csv())}, follow=True
        )
        assert Dataset.objects.count() == count
        assert messages_of(answer)[-2].startswith("These candles are here already")

    @pytest.mark.parametrize("headers", [{"HX-Request": "true"}, {}], ids=["htmx", "without a script"])
    def test_a_check_shows_what_would_be_stored_and_stores_nothing(
        self, headers: dict[str, str], examples: ExampleData, signed_in: SignedIn
    ) -> None:
        header, *rows = factories.candle_csv(4).splitlines()
        data = b"\n".join([b"www.example.org", header, *reversed(rows)])
        before = Dataset.objects.count()
        answer = signed_in("olivia").post(
            "/datasets/check/", {"coin": "ETH", "file": _upload(data)}, headers=headers
        )
        assert answer.status_code == 200
        read = words(answer)
        for said in (
            "skipped above the header: www.example.org",
            "the newest row was first",
            "4 bars of ETH",
        ):
            assert said in read
        assert ("Choose the file again" in read) == (not headers)
        assert ("<html" in text(answer)) == (not headers)
        assert Dataset.objects.count() == before

    def test_a_check_of_stored_candles_leads_to_their_dataset(
        self, examples: ExampleData, signed_in: SignedIn
    ) -> None:
        client = signed_in("olivia")
        client.post("/datasets/", {"coin": "ETH", "file": _upload(factories.candle_csv(4))})
        dataset = Dataset.objects.latest("id")
        sent = {"coin": "ETH", "file": _upload(factories.candle_csv(4))}
        answer = client.post("/datasets/check/", sent, headers={"HX-Request": "true"})
        assert f"These candles are dataset {dataset.pk} already" in words(answer)
        assert "Import</button>" not in text(answer)

    @pytest.mark.parametrize(("headers", "status"), [({"HX-Request": "true"}, 200), ({}, 400)], ids=str)
    def test_a_check_shows_why_a_file_is_refused(
        self, headers: dict[str, str], status: int, examples: ExampleData, signed_in: SignedIn
    ) -> None:
        sent = {"coin": "ETH", "file": _upload(factories.candle_csv(high="1"))}
        answer = signed_in("olivia").post("/datasets/check/", sent, headers=headers)
        assert answer.status_code == status
        assert "row 2 (line 3 of the file)" in words(answer)
        sent = {"coin": "ETH", "file": _upload(factories.candle_csv())}
        answer = signed_in("victor").post("/datasets/check/", sent, headers=headers)
        assert "operator role" in words(answer)

    def test_the_page_of_a_dataset_says_what_was_done_with_its_file(
        self, examples: ExampleData, signed_in: SignedIn
    ) -> None:
        client = signed_in("olivia")
        header, *rows = factories.candle_csv(4).splitlines()
        data = b"\n".join([header, *reversed(rows)])
        answer = client.post("/datasets/", {"coin": "ETH", "file": _upload(data)}, follow=True)
        dataset = Dataset.objects.latest("id")
        assert "CSV, named columns sorted: the newest row was first" in words(answer)
        download: Any = client.get(f"/datasets/{dataset.pk}/candles.csv")
        assert b"".join(download.streaming_content).startswith(b"timestamp,open,high,low,close,volume\n")
        (price,) = (client.get(f"/datasets/{dataset.pk}/charts/").json()["charts"]["price"],)
        assert [trace["type"] for trace in price["data"]] == ["candlestick", "bar"]
        assert price["data"][0]["high"] == [110.0] * 4

    @pytest.mark.parametrize(
        ("data", "problem"),
        [
            (b"", "This file is empty"),
            (b"not,candles\n1,2\n", "timestamp"),
            (factories.candle_csv(high="1"), "row 2"),
            (factories.candle_csv(close="nan"), "row 2"),
            (hostile_candles.nested_parquet(), "killed by SIG"),
        ],
        ids=[
            "empty",
            "other columns",
            "a high below the low",
            "a close that is not a number",
            "a column nested 2,000 deep",
        ],
    )
    def test_shows_the_error_of_a_file_and_keeps_the_coin(
        self, data: bytes, problem: str, examples: ExampleData, signed_in: SignedIn
    ) -> None:
        before = Dataset.objects.count()
        answer = signed_in("olivia").post("/datasets/", {"coin": "SOL", "file": _upload(data)})
        assert answer.status_code == 400
        assert problem in text(answer)
        assert '<option value="SOL" selected' in text(answer)
        assert Dataset.objects.count() == before

    def test_needs_a_file(self, examples: ExampleData, signed_in: SignedIn) -> None:
        answer = signed_in("olivia").post("/datasets/", {"coin": "SOL"})
        assert answer.status_code == 400 and "Choose a file with candles." in text(answer)

    def test_needs_an_operator(self, examples: ExampleData, signed_in: SignedIn) -> None:
        answer = signed_in("anna").post(
            "/datasets/", {"coin": "ETH", "file": _upload(factories.candle_csv())}
        )
        assert answer.status_code == 403 and "that needs the operator role" in text(answer)


class TestRuns:
    @pytest.mark.parametrize("is_embedded", [True, False])
    def test_the_command_shown_for_a_failed_run_is_valid(
        self, examples: ExampleData, signed_in: SignedIn, settings: Any, is_embedded: bool
    ) -> None:
        settings.IS_EMBEDDED = is_embedded
        run = examples.failed_run
        page = html.unescape(text(signed_in("olivia").get(f"/runs/{run.pk}/")))
        shown = re.search(r"<code>manage\.py train (.+?)</code>", page)
        assert shown is not None
        parser = load_command_class("training", "train").create_parser("manage.py", "train")
        asked = parser.parse_args(shown.group(1).split())
        assert (asked.like_run, asked.coin, asked.device) == (run.pk, run.coin.symbol, "cpu")
        assert asked.acting_as == ("olivia" if is_embedded else None)
        assert ("CRPBOT_TOKEN" in page) is not is_embedded

    def test_a_failed_run_is_launched_again_with_changes(
        self, examples: ExampleData, signed_in: SignedIn
    ) -> None:
        answer = signed_in("olivia").post(
            f"/runs/{examples.failed_run.pk}/again/", {"learning_rate": "0.001"}, follow=True
        )
        run = TrainingRun.objects.latest("id")
        assert (run.coin, run.dataset, run.seed) == (
            examples.failed_run.coin,
            examples.failed_run.dataset,
            examples.failed_run.seed,
        )
        assert run.parameters == {"learning_rate": 0.001}
        assert f"Launched run {run.pk}" in messages_of(answer)[0]

    def test_launching_again_selects_the_input_of_the_run(
        self, examples: ExampleData, signed_in: SignedIn
    ) -> None:
        """A browser sends what is selected, and the first choice where nothing is."""
        run = examples.failed_run
        TrainingRun.objects.filter(pk=run.pk).update(line="v7_fixed", parameters={"input": "window100"})
        page = text(signed_in("olivia").get(f"/runs/{run.pk}/"))
        assert '<option value="window100" selected>' in page
        signed_in("olivia").post(f"/runs/{run.pk}/again/", {"input": "window100", "epochs": "4"})
        assert TrainingRun.objects.latest("id").parameters == {"input": "window100", "epochs": 4}

    def test_the_bounds_of_the_parameters_hold(self, examples: ExampleData, signed_in: SignedIn) -> None:
        answer = signed_in("olivia").post(
            f"/runs/{examples.failed_run.pk}/again/", {"learning_rate": "3", "seed": "8"}
        )
        assert answer.status_code == 400
        assert "less than or equal to 0.01" in text(answer) and 'value="8"' in text(answer)

    def test_a_running_run_is_not_launched_again(self, examples: ExampleData, signed_in: SignedIn) -> None:
        answer = signed_in("olivia").post(f"/runs/{examples.running_run.pk}/again/", {})
        assert answer.status_code == 409 and "only a run that failed or was cancelled" in text(answer)

    def test_cancelling_waits_for_the_current_epoch(self, examples: ExampleData, signed_in: SignedIn) -> None:
        answer = signed_in("olivia").post(
            f"/runs/{examples.running_run.pk}/cancel/", {"reason": "no use"}, follow=True
        )
        assert messages_of(answer) == [f"Run {examples.running_run.pk} ends after its present epoch."]
        assert "stops after this epoch" in text(answer)

    @pytest.mark.parametrize("path", ["/runs/{running_run}/cancel/", "/runs/{failed_run}/again/"])
    def test_need_an_operator(self, path: str, examples: ExampleData, signed_in: SignedIn) -> None:
        target = path.format(running_run=examples.running_run.pk, failed_run=examples.failed_run.pk)
        answer = signed_in("anna").post(target, {"reason": "no use"})
        assert answer.status_code == 403 and "that needs the operator role" in text(answer)

    def test_an_ended_run_cannot_be_cancelled(self, examples: ExampleData, signed_in: SignedIn) -> None:
        answer = signed_in("olivia").post(f"/runs/{examples.failed_run.pk}/cancel/", {"reason": "late"})
        assert answer.status_code == 409 and "has already ended" in text(answer)


class TestPolicies:
    def test_a_weaker_policy_needs_two_people_and_shows_on_every_page(
        self, examples: ExampleData, signed_in: SignedIn
    ) -> None:
        before = policy_in_force()
        fields = _policy_fields(signed_in("anna"))
        signed_in("anna").post(
            "/policies/propose/", {**fields, "accuracy.above": "0.6", "reason": "a calm market"}
        )
        proposed = GatePolicy.objects.latest("number")
        assert proposed.document["gates"]["accuracy"]["above"] == 0.6
        assert policy_in_force() == before

        alone = signed_in("anna").post(f"/policies/{proposed.number}/adopt/", {"reason": "mine"})
        assert alone.status_code == 403 and policy_in_force() == before
        signed_in("arthur").post(f"/policies/{proposed.number}/adopt/", {"reason": "agreed"})
        assert policy_in_force() == proposed
        for path in ("/", "/runs/", f"/releases/{examples.rejected.pk}/", "/nowhere/"):
            assert "The policy in force is weaker than the baseline." in text(
                signed_in("victor").get(path)
            ), path

    def test_a_draft_gives_its_reasons_and_is_proposed_with_one_click(
        self, examples: ExampleData, signed_in: SignedIn
    ) -> None:
        path, before = "/policies/drafts/real-markets/", policy_in_force()
        page = html.unescape(text(signed_in("anna").get(path)))
        for change, why in explain_draft(DRAFTS["real-markets"]):
            assert format_state(change.gate) in page and why in page
        assert signed_in("anna").post(path, {"reason": ""}).status_code == 400
        assert "needs the approver role" in text(signed_in("olivia").get(path))
        assert signed_in("olivia").post(path, {"reason": "why"}).status_code == 403
        assert signed_in("anna").get("/policies/drafts/none/").status_code == 404
        signed_in("anna").post(path, {"reason": "a real market"})
        proposed = GatePolicy.objects.latest("number")
        assert proposed.document == DRAFTS["real-markets"].document and policy_in_force() == before
        assert path in signed_in("arthur").get(f"/policies/{proposed.number}/").content.decode()
        signed_in("arthur").post(f"/policies/{proposed.number}/adopt/", {"reason": "agreed"})
        assert "The policy in force says the same." in text(signed_in("anna").get(path))

    def test_the_form_has_every_gate_with_bounds_and_help(
        self, examples: ExampleData, signed_in: SignedIn
    ) -> None:
        page = text(signed_in("anna").get("/policies/propose/"))
        for gate in GATES.values():
            assert f"<strong>{gate.name.replace('_', ' ')}</strong>" in page
            assert (f'name="{gate.name}.role"' in page) == (gate.name not in BASELINE_NAMES)
            for parameter in gate.parameters:
                assert f'name="{gate.name}.{parameter.name}"' in page
                assert escape(parameter.help) in page
        assert 'min="0.34" max="0.9999"' in page
        for name, thresholds in DEFAULT_LIVE.items():
            for threshold in thresholds:
                assert f'name="live.{name}.{threshold}"' in page

    def test_a_live_gate_is_changed_like_any_other(self, examples: ExampleData, signed_in: SignedIn) -> None:
        fields = _policy_fields(signed_in("anna"))
        changed = {
            "live.confidence.share_below": "0.95",
            "live.logit_range.greatest": "8",
            "reason": "a surer model",
        }
        answer = signed_in("anna").post("/policies/propose/", {**fields, **changed}, follow=True)
        told = [difference.sentence for difference in answer.context["differences"]]
        assert told == [
            "live logit range: greatest is 8 instead of 10 (stricter)",
            "live confidence: share below is 0.95 instead of 0.8 (looser)",
        ]
        page = text(answer)
        assert "live confidence: share below is 0.95 instead of 0.8" in page
        assert "default: less than 80 % over 90 %" in page
        refused = signed_in("anna").post(
            "/policies/propose/", {**fields, "live.confidence.predictions": "0", "reason": "a slip"}
        )
        assert refused.status_code == 400 and "greater than or equal to 1" in text(refused)

    def test_a_gate_becomes_advisory_or_absent_and_the_differences_show_it(
        self, examples: ExampleData, signed_in: SignedIn
    ) -> None:
        fields = _policy_fields(signed_in("anna"))
        changed = {
            "skill.role": "advisory",
            "drift.role": "absent",
            "too_good.above": "0.8",
            "reason": "candles of a young coin",
        }
        answer = signed_in("anna").post("/policies/propose/", {**fields, **changed}, follow=True)
        gates = answer.context["policy"].document["gates"]
        assert (gates["skill"]["required"], "drift" in gates) == (False, False)
        told = {(d.gate, d.parameter, d.direction.value) for d in answer.context["differences"]}
        assert told == {
            ("skill", "gate", "looser"),
            ("drift", "gate", "looser"),
            ("too_good", "above", "stricter"),
        }
        assert "Differences from policy" in text(answer)

    def test_an_earlier_policy_can_be_proposed_again(
        self, examples: ExampleData, signed_in: SignedIn
    ) -> None:
        client = signed_in("anna")
        fields = _policy_fields(client, "/policies/propose/?from=1")
        client.post("/policies/propose/?from=1", {**fields, "reason": "the baseline alone"})
        assert GatePolicy.objects.latest("number").document == GatePolicy.objects.get(number=1).document

    def test_keeps_the_input_and_shows_the_error(self, examples: ExampleData, signed_in: SignedIn) -> None:
        before = GatePolicy.objects.count()
        fields = _policy_fields(signed_in("anna"))
        answer = signed_in("anna").post(
            "/policies/propose/", {**fields, "accuracy.above": "7", "reason": "a slip of the finger"}
        )
        assert answer.status_code == 400
        assert "less than or equal to 0.9999" in text(answer) and "a slip of the finger" in text(answer)
        assert GatePolicy.objects.count() == before

    def test_a_proposal_without_changes_is_refused(self, examples: ExampleData, signed_in: SignedIn) -> None:
        answer = signed_in("anna").post(
            "/policies/propose/", {**_policy_fields(signed_in("anna")), "reason": "why not"}
        )
        assert answer.status_code == 409 and "which is in force" in text(answer)

    @pytest.mark.parametrize("name", ["victor", "olivia"])
    def test_need_an_approver(self, name: str, examples: ExampleData, signed_in: SignedIn) -> None:
        fields = _policy_fields(signed_in("anna"))
        answer = signed_in(name).post(
            "/policies/propose/", {**fields, "accuracy.above": "0.7", "reason": "stricter"}
        )
        assert answer.status_code == 403 and "that needs the approver role" in text(answer)


class TestDiagnoses:
    def test_another_policy_evaluates_the_same_measurements(
        self, examples: ExampleData, signed_in: SignedIn
    ) -> None:
        client = signed_in("anna")
        page = f"/diagnoses/{examples.diagnosis.pk}/"
        answer = client.post(f"{page}judge/", {"policy": "1"}, follow=True)
        judged = Diagnosis.objects.latest("id")
        assert (judged.measurement, judged.policy.number) == (examples.diagnosis.measurement, 1)
        assert messages_of(answer) == ["Under policy 1 the verdict is: failed."]
        assert AuditEvent.objects.filter(kind="diagnosis.judged_again", actor="anna").exists()
        assert f'href="/diagnoses/{judged.pk}/"' in text(client.get(page))
        assert Release.objects.get(pk=examples.rejected.pk).state == "rejected"

    def test_every_gate_has_its_sentence_and_the_attempt_is_shown(
        self, examples: ExampleData, signed_in: SignedIn
    ) -> None:
        page = text(signed_in("victor").get(f"/diagnoses/{examples.diagnosis.pk}/"))
        for result in examples.diagnosis.results.all():
            assert escape(result.sentence) in page, result.gate
        assert ">Attempt</a></dt>" in page and examples.diagnosis.digest in page

    def test_needs_an_operator_or_an_approver(self, examples: ExampleData, signed_in: SignedIn) -> None:
        path = f"/diagnoses/{examples.diagnosis.pk}/"
        client = signed_in("victor")
        assert f'action="{path}judge/"' not in text(client.get(path))
        answer = client.post(f"{path}judge/", {"policy": "1"})
        assert answer.status_code == 403 and "that needs the operator role" in text(answer)

    @pytest.mark.parametrize(("policy", "status"), [("", 400), ("x", 400), ("0", 400), ("99", 404)])
    def test_needs_an_existing_policy(
        self, policy: str, status: int, examples: ExampleData, signed_in: SignedIn
    ) -> None:
        answer = signed_in("anna").post(f"/diagnoses/{examples.diagnosis.pk}/judge/", {"policy": policy})
        assert answer.status_code == status


class TestReports:
    @pytest.mark.parametrize(("against", "status"), [("9999", 404), ("x", 400), ("1" * 30, 400), ("²", 400)])
    def test_comparing_with_no_release_is_an_error(
        self, against: str, status: int, examples: ExampleData, signed_in: SignedIn
    ) -> None:
        answer = signed_in("victor").get(f"/releases/{examples.awaiting.pk}/report/", {"against": against})
        assert answer.status_code == status

    def test_the_newest_releases_are_offered_for_the_comparison(
        self, examples: ExampleData, signed_in: SignedIn, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """However long the history is. Any other is compared by its number."""
        monkeypatch.setattr(reports, "OFFERED", 2)
        path = f"/releases/{examples.awaiting.pk}/report/"
        page = text(signed_in("victor").get(path, {"against": examples.inherited.pk}))
        newest = Release.objects.exclude(pk=examples.awaiting.pk).values_list("pk", flat=True)[:2]
        assert re.findall(r'<option value="(\d+)">', page) == [str(pk) for pk in newest]
        assert f'list="newest" value="{examples.inherited.pk}"' in page

    def test_the_five_failures_come_first(self, examples: ExampleData, signed_in: SignedIn) -> None:
        page = text(signed_in("victor").get(f"/releases/{examples.awaiting.pk}/report/"))
        assert "Of the five V6 failures four are fixed (1, 2, 3 and 4)" in page
        assert page.index("Severe overconfidence") < page.index("Gate comparison")

    def test_the_saved_file_is_named_after_the_releases(
        self, examples: ExampleData, signed_in: SignedIn
    ) -> None:
        answer = signed_in("victor").get(f"/releases/{examples.awaiting.pk}/report/file/")
        name = f"report-release-{examples.awaiting.pk}-against-{examples.inherited.pk}.html"
        assert answer["Content-Disposition"] == f'attachment; filename="{name}"'


@pytest.mark.parametrize("name", ["victor", "anna"])
def test_only_an_operator_is_offered_a_launch(name: str, examples: ExampleData, signed_in: SignedIn) -> None:
    client = signed_in(name)
    for path in ("/", "/releases/", "/releases/?state=live", f"/releases/{examples.rejected.pk}/"):
        page = text(client.get(path))
        assert 'href="/launch/' not in page, path
    assert 'href="/launch/' in text(signed_in("olivia").get("/releases/"))


def _revision() -> int:
    now = pointer.get_current()
    assert now is not None
    return now.revision


def _upload(data: bytes) -> SimpleUploadedFile:
    return SimpleUploadedFile("eth.csv", data)


def _policy_fields(client: Any, path: str = "/policies/propose/") -> dict[str, str]:
    """The proposal's form as it is first shown."""
    form = client.get(path).context["form"]
    return {name: str(field.initial) for name, field in form.fields.items() if name != "reason"}
