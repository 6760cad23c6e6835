"""Bots follow the service's keys by themselves, and no single person cuts off a bot that does not yet."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from django.db import DatabaseError, connection, transaction
from pytest_django import Settings

from accounts.roles import Actor, Role
from audit.models import AuditEvent
from common.errors import Conflict, NotAllowed
from crpbot_runtime.errors import KeysRefused
from crpbot_runtime.protocol.envelope import verify_envelope
from crpbot_runtime.protocol.public_keys import PublicKeys
from deploy.bots import key_decisions
from deploy.bots.heartbeats import receive_heartbeat
from deploy.bots.key_trust import load_fleet_trust
from deploy.models import KeySet, SigningKey
from deploy.pointer import pointer
from deploy.rules import MOST_KEYS, KeyState
from deploy.serving import key_sets, keys, signing
from tests import scenarios
from tests.scenarios import APPROVER, LAUNCHER

pytestmark = pytest.mark.django_db
WHY: dict[str, Any] = {"actor": APPROVER, "reason": "yearly change"}
OTHER = Actor("amelie", roles=frozenset({Role.APPROVER}))
BOT = Actor("trader", is_bot=True)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, settings: Settings) -> Path:
    settings.SIGNING_KEYS_DIR = tmp_path / "keys"
    return tmp_path / "keys"


@pytest.fixture
def first() -> SigningKey:
    """The key that signs since the service is in use."""
    scenarios.service_in_use()
    signing.get_envelope()
    return SigningKey.objects.get()


def add_key() -> SigningKey:
    return key_decisions.activate_key(key_decisions.create_key(**WHY), **WHY)


def follow(keys_of_bot: PublicKeys) -> PublicKeys:
    return keys_of_bot.follow(key_sets.build_chain().body)


def report(*trusted: SigningKey, instance: str = "desk-1") -> None:
    """A bot that runs what it must, and trusts these keys."""
    move = pointer.get_current()
    assert move is not None
    sent = scenarios.heartbeat(move, instance)
    receive_heartbeat(replace(sent, trusted_keys=tuple(key.key_id for key in trusted)), actor=BOT)


class TestTheChain:
    def test_leads_from_the_first_key_through_every_change(self, first: SigningKey) -> None:
        given = PublicKeys(first.public_hex)
        for _ in range(3):
            oldest = keys.list_active()[0]
            add_key()
            key_decisions.retire_key(oldest, **WHY)
        (last,) = keys.list_active()
        followed = follow(given)
        assert set(followed.key_ids) == {last.key_id}
        assert followed.version == key_sets.get_version() == 7
        assert verify_envelope(signing.get_envelope().body, followed).key_version == 7

    def test_is_signed_by_keys_of_the_set_before_alone(self, first: SigningKey) -> None:
        second = add_key()
        key_decisions.retire_key(first, **WHY)
        signers = [
            {signature["keyid"] for signature in json.loads(body)["signatures"]}
            for body in KeySet.objects.order_by("version").values_list("body", flat=True)
        ]
        assert signers == [{first.key_id}, {first.key_id}, {first.key_id, second.key_id}]

    def test_names_a_key_before_it_signs(self, first: SigningKey) -> None:
        created = key_decisions.create_key(**WHY)
        assert set(follow(PublicKeys(keys.export_public())).key_ids) == {first.key_id, created.key_id}

    def test_goes_on_by_the_other_key_where_one_is_lost(self, first: SigningKey, folder: Path) -> None:
        second = add_key()
        bot = follow(PublicKeys(first.public_hex))
        (folder / f"{first.key_id}.pem").unlink()
        key_decisions.retire_key(first, **WHY)
        assert set(follow(bot).key_ids) == {second.key_id}

    def test_where_every_private_half_is_lost_no_bot_follows(self, first: SigningKey, folder: Path) -> None:
        (folder / f"{first.key_id}.pem").unlink()
        new = key_decisions.create_key(**WHY)
        with pytest.raises(KeysRefused):
            follow(PublicKeys(f"1:{first.public_hex}"))
        by_hand = PublicKeys(keys.export_public())
        assert follow(by_hand) == by_hand
        assert new.key_id in by_hand.key_ids

    def test_sends_what_a_bot_takes(self, first: SigningKey) -> None:
        for _ in range(MOST_KEYS - 1):
            key_decisions.create_key(**WHY)
        assert len(follow(PublicKeys(first.public_hex)).key_ids) == MOST_KEYS
        with pytest.raises(Conflict, match="retire one of them"):
            key_decisions.create_key(**WHY)

    def test_a_key_that_could_not_be_stored_leaves_no_private_half(
        self, first: SigningKey, folder: Path
    ) -> None:
        for _ in range(MOST_KEYS):
            try:
                key_decisions.create_key(**WHY)
            except Conflict:
                break
        assert len(list(folder.glob("*.pem"))) == MOST_KEYS

    @pytest.mark.parametrize(
        "statement",
        [
            "UPDATE deploy_keyset SET body = '{}'",
            "DELETE FROM deploy_keyset",
            "UPDATE deploy_keyset SET version = 9",
        ],
    )
    @pytest.mark.postgresql
    def test_is_not_edited_past_the_service(self, first: SigningKey, statement: str) -> None:
        with pytest.raises(DatabaseError), transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(statement)


class TestRetiringAKeyThatBotsNeed:
    def test_is_refused_and_names_the_bots(self, first: SigningKey) -> None:
        second = add_key()
        report(first)
        report(first, second, instance="desk-2")
        report(instance="desk-3")  # a client that does not say what it trusts
        trust = load_fleet_trust().count(first)
        assert (trust.bots, trust.trusted_by, trust.cut_off) == (3, 2, 2)
        with pytest.raises(Conflict, match=r"trader \(desk-1\), trader \(desk-3\) trust no other key"):
            key_decisions.retire_key(first, **WHY)
        assert SigningKey.objects.get(pk=first.pk).state == KeyState.ACTIVE
        assert AuditEvent.objects.filter(kind="signingkey.retire.refused").count() == 1
        report(first, second)
        report(second, instance="desk-3")
        key_decisions.retire_key(first, **WHY)

    def test_takes_two_people_and_is_immediate(self, first: SigningKey, folder: Path) -> None:
        """As for a stolen key."""
        add_key()
        report(first)
        key_decisions.propose_retirement(first, actor=APPROVER, reason="stolen")
        first.refresh_from_db()
        with pytest.raises(NotAllowed, match="takes another person"):
            key_decisions.approve_retirement(first, cut_off=1, **WHY)
        with pytest.raises(Conflict, match="more than the 0 that you saw"):
            key_decisions.approve_retirement(first, actor=OTHER, reason="stolen", cut_off=0)
        assert SigningKey.objects.get(pk=first.pk).state == KeyState.ACTIVE
        key_decisions.approve_retirement(first, actor=OTHER, reason="stolen", cut_off=1)
        assert first.key_id not in follow(PublicKeys(first.public_hex)).key_ids
        detail = json.loads(AuditEvent.objects.get(kind="signingkey.retired").body)["detail"]
        assert (detail["proposed_by"], detail["cut_off"]) == ("anna", ["trader (desk-1)"])

    @pytest.mark.parametrize("decide", [key_decisions.propose_retirement, key_decisions.retire_key])
    def test_the_only_active_key_is_not_even_proposed(
        self, first: SigningKey, decide: Callable[..., SigningKey]
    ) -> None:
        with pytest.raises(Conflict, match="the only active key"):
            decide(first, **WHY)

    def test_what_nobody_proposed_is_not_approved(self, first: SigningKey) -> None:
        add_key()
        with pytest.raises(Conflict, match="Nobody has proposed"):
            key_decisions.approve_retirement(first, cut_off=9, **WHY)

    def test_neither_step_is_open_to_an_operator(self, first: SigningKey) -> None:
        add_key()
        with pytest.raises(NotAllowed, match="approver role"):
            key_decisions.propose_retirement(first, actor=LAUNCHER, reason="why not")
        key_decisions.propose_retirement(first, **WHY)
        first.refresh_from_db()
        with pytest.raises(NotAllowed, match="approver role"):
            key_decisions.approve_retirement(first, actor=LAUNCHER, reason="why not", cut_off=9)

    def test_a_bot_that_is_gone_needs_no_key(self, first: SigningKey, settings: Settings) -> None:
        add_key()
        report(first)
        settings.BOT_GONE_SECONDS = settings.BOT_HEARTBEAT_SECONDS = 0
        key_decisions.retire_key(first, **WHY)
