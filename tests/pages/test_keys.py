"""The page Keys: what it shows of each key, and its forms."""

import html
import re
from pathlib import Path
from typing import Any

import pytest
from pytest_django import Settings

from deploy.bots import key_decisions
from deploy.models import SigningKey
from deploy.rules import KeyState
from tests import factories
from tests.pages.conftest import SignedIn
from tests.scenarios import APPROVER

pytestmark = [pytest.mark.django_db, pytest.mark.slow]
WHY: dict[str, Any] = {"actor": APPROVER, "reason": "yearly change"}
STOLEN = {"reason": "the laptop was stolen"}


@pytest.fixture
def first(signed_in: SignedIn, settings: Settings, tmp_path: Path) -> SigningKey:
    """An active key beside which another signs, while no bot of the example data says what it trusts."""
    settings.SIGNING_KEYS_DIR = tmp_path
    old, _ = (key_decisions.activate_key(key_decisions.create_key(**WHY), **WHY) for _ in range(2))
    return old


def words(page: str) -> str:
    return html.unescape(" ".join(re.sub(r"<[^>]+>", " ", page).split()))


def page(signed_in: SignedIn, name: str) -> str:
    return words(signed_in(name).get("/bots/keys/").content.decode())


def test_a_key_that_bots_need_is_retired_by_two_people(first: SigningKey, signed_in: SignedIn) -> None:
    factories.person("amelie", "approver")
    path = f"/bots/keys/{first.key_id}"
    assert "takes two approvers" in page(signed_in, "victor")
    refused = signed_in("anna").post(f"{path}/retire/", STOLEN)
    assert refused.status_code == 409
    assert "trust no other key that signs" in words(refused.content.decode())
    assert signed_in("anna").post(f"{path}/propose/", STOLEN).status_code == 302
    assert "anna proposes to retire it: the laptop was stolen" in page(signed_in, "victor")
    assert "Approve the retirement" not in page(signed_in, "anna")
    assert "Approve the retirement" in page(signed_in, "amelie")
    assert signed_in("amelie").post(f"{path}/approve/", {**STOLEN, "cut_off": 0}).status_code == 409
    assert signed_in("anna").post(f"{path}/approve/", {**STOLEN, "cut_off": 99}).status_code == 403
    assert signed_in("amelie").post(f"{path}/approve/", {**STOLEN, "cut_off": 99}).status_code == 302
    assert SigningKey.objects.get(pk=first.pk).state == KeyState.RETIRED


def test_a_key_is_created_and_activated_by_an_approver(first: SigningKey, signed_in: SignedIn) -> None:
    assert signed_in("olivia").post("/bots/keys/", STOLEN).status_code == 403
    assert signed_in("anna").post("/bots/keys/", {"reason": " "}).status_code == 400
    assert signed_in("anna").post("/bots/keys/", STOLEN).status_code == 302
    newest = SigningKey.objects.first()
    assert newest is not None
    refused = signed_in("anna").post(f"/bots/keys/{newest.key_id}/activate/", STOLEN)
    assert "2 keys sign already" in words(refused.content.decode())


def test_a_viewer_is_offered_no_decision(first: SigningKey, signed_in: SignedIn) -> None:
    assert '<form class="form"' not in signed_in("victor").get("/bots/keys/").content.decode()
    assert signed_in("anna").post(f"/bots/keys/{first.key_id}/forget/", STOLEN).status_code == 404
