"""Two names that a reader takes for one are never two people."""

from collections.abc import Callable

import pytest
from django.db import DatabaseError, transaction

from accounts import names, services
from accounts.models import User
from accounts.roles import Actor, Role
from audit.models import AuditEvent
from common.errors import Conflict, InvalidInput, NotAllowed
from deploy.releases import decide
from deploy.releases.coins import add_coin
from deploy.rules import Purpose
from tests import factories, scenarios
from training.models import Coin
from training.services.coins import find_coin

LOOKALIKES = {
    "another case": "ANNA",
    "Cyrillic": "аnnа",
    "Greek capitals": "ΑΝΝΑ",
    "full width": "ａｎｎａ",
    "mathematical letters": "𝐚𝐧𝐧𝐚",
    "a zero-width space": "an\u200bna",
    "a zero-width joiner": "anna\u200d",
    "a right-to-left override": "\u202eanna",
    "a right-to-left mark": "anna\u200f",
    "a soft hyphen": "an\u00adna",
    "a byte order mark": "\ufeffanna",
    "an invisible letter": "anna\u3164",
}


@pytest.mark.parametrize("name", LOOKALIKES.values(), ids=LOOKALIKES.keys())
def test_a_lookalike_is_recognised(name: str) -> None:
    assert names.are_confusable(name, "anna")
    assert Actor("anna").is_called(name)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("rnaria", "maria"),
        ("Ivan", "lvan"),
        ("Ivan", "ivan"),
        ("bot-1", "bot-l"),
        ("bot-O", "bot-0"),
        ("é", "e\u0301"),
    ],
)
def test_letters_that_look_like_others_of_the_same_alphabet_are_recognised(one: str, other: str) -> None:
    assert names.are_confusable(one, other)


@pytest.mark.parametrize(
    ("one", "other"), [("anna", "hanna"), ("bot-1", "bot-2"), ("olivia", "victor"), ("anna", "änna")]
)
def test_different_names_are_different(one: str, other: str) -> None:
    assert not names.are_confusable(one, other)


@pytest.mark.django_db
@pytest.mark.parametrize("name", LOOKALIKES.values(), ids=LOOKALIKES.keys())
def test_a_person_whose_name_looks_like_another_ones_is_refused(name: str) -> None:
    services.close_account(factories.person("anna"), actor="admin")  # a closed account keeps its name
    before = AuditEvent.objects.count()
    with pytest.raises((Conflict, InvalidInput)) as refused:
        factories.person(name)
    assert any(
        sentence in refused.value.message
        for sentence in ("could be mistaken for 'anna'", "already a user 'anna'", "not drawn")
    )
    assert (User.objects.count(), AuditEvent.objects.count()) == (1, before)


@pytest.mark.django_db
@pytest.mark.parametrize("name", ["Gate", "ｒeconcile", "sеrvice", "nobοdy"])
def test_a_name_that_looks_like_a_part_of_the_service_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="The service itself uses"):
        factories.person(name)


@pytest.mark.django_db
def test_a_person_is_found_by_the_normalised_name() -> None:
    anna = factories.person("anna")
    assert services.find_user("ａｎｎａ") == anna


@pytest.mark.django_db
@pytest.mark.postgresql
@pytest.mark.parametrize(
    "change",
    [lambda rows: rows.update(username="maria"), lambda rows: rows.delete()],
    ids=["renamed", "deleted"],
)
def test_the_database_refuses_that_a_person_is(change: Callable[..., object]) -> None:
    """A launcher with a new name, or with a new account of the old one, could approve the release."""
    factories.person("anna", "approver")
    with pytest.raises(DatabaseError), transaction.atomic():
        change(User.objects.filter(username="anna"))
    assert User.objects.get().username == "anna"


@pytest.mark.django_db
@pytest.mark.slow
def test_a_launcher_does_not_approve_under_a_name_that_looks_like_theirs() -> None:
    """No second account of that kind can be made; if one were there all the same, it would be the same person."""
    release = scenarios.awaiting_approval()
    assert release.purpose == Purpose.CANDIDATE
    lookalike = Actor(release.launched_by.upper(), frozenset({Role.VIEWER, Role.APPROVER}))
    with pytest.raises(NotAllowed, match="it takes another person"):
        decide.approve(release, actor=lookalike, reason="figures checked", revision=1)


@pytest.mark.django_db
def test_a_coin_whose_symbol_looks_like_another_ones_is_refused() -> None:
    with pytest.raises(Conflict, match="could be mistaken for SOL"):
        add_coin("S0L", actor=factories.OPERATOR, reason="traded now")
    with pytest.raises(Conflict, match="a coin SOL already"):
        add_coin("ſoL", actor=factories.OPERATOR, reason="traded now")
    for symbol in ("ВТС", "S\u200bOL", "B\u202eTC", "ıl"):
        with pytest.raises(InvalidInput, match="letters and digits"):
            add_coin(symbol, actor=factories.OPERATOR, reason="traded now")
    assert set(Coin.objects.values_list("symbol", flat=True)) == {"BTC", "ETH", "SOL"}
    assert find_coin("ｓｏｌ").symbol == "SOL"
