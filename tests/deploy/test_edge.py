"""The bots' hot path answers from memory what the database says."""

import asyncio
import json
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.db import OperationalError, connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts import services as accounts
from accounts.models import ApiToken
from crpbot.asgi import django_application
from crpbot_runtime.protocol.envelope import verify_envelope
from crpbot_runtime.protocol.public_keys import PublicKeys
from deploy.edge import freshness
from deploy.edge.application import ACTIVE_PATH, KEYS_PATH, SIGNED_PATH, Edge
from deploy.releases import decide
from deploy.serving import keys, revision_log, signing, snapshot
from tests import factories, scenarios
from tests.deploy.asgi_client import Answer, ask
from tests.scenarios import APPROVER

pytestmark = [pytest.mark.usefixtures("committed"), pytest.mark.slow]


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Edge:
    """An edge that asks the database every time, so that a test need not wait."""
    monkeypatch.setattr(freshness, "FRESH_SECONDS", -1.0)
    return Edge(django_application)


@pytest.fixture
def bot() -> str:
    return factories.token(factories.person("bot"), "bot")


def get(application: Edge, token: str, *, path: str = ACTIVE_PATH, **headers: Any) -> Answer:
    return async_to_sync(ask)(application, path=path, authorization=f"Bearer {token}", **headers)


def test_a_bot_reads_the_snapshot_of_the_last_move(fresh: Edge, bot: str) -> None:
    scenarios.service_in_use()
    answer = get(fresh, bot)
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json()["revision"] == 1
    assert answer.json()["line"] == "v6_enhanced"
    assert answer.body == snapshot.build_current().body


def test_a_moved_pointer_is_served_and_the_old_etag_no_longer_matches(fresh: Edge, bot: str) -> None:
    scenarios.service_in_use()
    before = get(fresh, bot)
    assert get(fresh, bot, if_none_match=before.headers["etag"]).status == 304
    decide.pin(actor=APPROVER, reason="V6 is broken")
    after = get(fresh, bot, if_none_match=before.headers["etag"])
    assert (after.status, after.json()["revision"], after.json()["line"]) == (200, 2, "v5")


def test_the_signed_snapshot_is_served_with_an_etag_of_its_own(fresh: Edge, bot: str) -> None:
    scenarios.service_in_use()
    answer = get(fresh, bot, path=SIGNED_PATH)
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    trusted = PublicKeys(keys.export_public())
    assert verify_envelope(answer.body, trusted).snapshot.revision == 1
    assert answer.headers["etag"] != get(fresh, bot).headers["etag"]
    decide.pin(actor=APPROVER, reason="V6 is broken")
    moved = get(fresh, bot, path=SIGNED_PATH, if_none_match=answer.headers["etag"])
    assert (moved.status, verify_envelope(moved.body, trusted).snapshot.line) == (200, "v5")


def test_the_signed_snapshot_costs_nothing_while_it_is_known(fresh: Edge, bot: str) -> None:
    scenarios.service_in_use()

    def again() -> int:
        etag = get(fresh, bot, path=SIGNED_PATH).headers["etag"]
        return get(fresh, bot, path=SIGNED_PATH, if_none_match=etag).status

    # Twice: a minute may end between two questions, though not between these two and the next two.
    assert 304 in (again(), again())


def test_without_a_signature_bots_get_503_and_people_still_see_the_pointer(fresh: Edge, bot: str) -> None:
    scenarios.service_in_use()
    get(fresh, bot, path=SIGNED_PATH)
    revision_log.raise_to(snapshot.get_service_name(), revision_log.SignedRevision(7, "another history"))
    answer = get(fresh, bot, path=SIGNED_PATH)
    assert (answer.status, "advance_revision --by 7" in answer.json()["detail"]) == (503, True)
    assert get(fresh, bot).json()["revision"] == 1


def test_head_sends_the_length_and_no_body(fresh: Edge, bot: str) -> None:
    scenarios.service_in_use()
    answer = async_to_sync(ask)(fresh, method="HEAD", authorization=f"Bearer {bot}")
    assert (answer.status, answer.body) == (200, b"")
    assert int(answer.headers["content-length"]) == len(snapshot.build_current().body)


def test_before_the_first_pointer_it_says_what_is_missing(fresh: Edge, bot: str) -> None:
    answer = get(fresh, bot)
    assert answer.status == 503
    assert "must inherit" in answer.json()["detail"]
    assert answer.headers["content-type"] == "application/problem+json"


def test_an_unknown_token_is_refused(fresh: Edge) -> None:
    answer = get(fresh, "crp_bot_made_up")
    assert (answer.status, answer.headers["www-authenticate"][:6]) == (401, "Bearer")


def test_a_revoked_token_is_refused(fresh: Edge, bot: str) -> None:
    scenarios.service_in_use()
    assert get(fresh, bot).status == 200
    accounts.revoke_token(ApiToken.objects.get(), actor="the tests")
    assert get(fresh, bot).status == 401


def test_a_person_whose_role_was_withdrawn_is_refused(fresh: Edge) -> None:
    scenarios.service_in_use()
    person = factories.person("oscar", "operator")
    token = factories.token(person, "operator")
    assert get(fresh, token).status == 200
    accounts.withdraw(person, factories.Role.OPERATOR, actor="the tests")
    assert get(fresh, token).status == 403


def test_answers_have_their_content_type_and_refusals_are_not_cached(fresh: Edge, bot: str) -> None:
    scenarios.service_in_use()
    etag = get(fresh, bot).headers["etag"]
    answered, unchanged = get(fresh, bot, path=SIGNED_PATH), get(fresh, bot, if_none_match=etag)
    refused = get(fresh, "crp_bot_made_up")
    assert [answer.status for answer in (answered, unchanged, refused)] == [200, 304, 401]
    for answer in (answered, unchanged, refused):
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert refused.headers["cache-control"] == "no-store"


def test_everything_else_goes_to_django(fresh: Edge) -> None:
    assert async_to_sync(ask)(fresh).status == 401  # no bearer: Django's own view answers
    assert async_to_sync(ask)(fresh, method="POST", authorization="Bearer x").status in (401, 405)


def test_an_answer_stays_for_half_a_second_and_no_longer(bot: str) -> None:
    scenarios.service_in_use()
    application = Edge(django_application)

    async def story() -> list[int]:
        seen = [(await ask(application, authorization=f"Bearer {bot}")).json()["revision"]]
        await sync_to_async(decide.pin)(actor=APPROVER, reason="V6 is broken")
        await asyncio.sleep(freshness.FRESH_SECONDS + 0.05)
        seen.append((await ask(application, authorization=f"Bearer {bot}")).json()["revision"])
        return seen

    assert async_to_sync(story)() == [1, 2]


def test_a_flood_of_made_up_tokens_is_forgotten(fresh: Edge) -> None:
    for number in range(30):
        get(fresh, f"crp_bot_{number}")
    assert len(fresh.owners) <= 1


def test_a_flood_of_made_up_tokens_costs_one_question_at_a_time(
    bot: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenarios.service_in_use()
    monkeypatch.setattr(freshness, "FRESH_SECONDS", 60.0)
    asked, under_way, at_once = list[int](), list[int](), list[int]()
    find_owners = accounts.find_owners

    def slowly(digests: Any) -> Any:
        asked.append(len(digests))
        under_way.append(1)
        time.sleep(0.02)
        at_once.append(len(under_way))
        under_way.pop()
        return find_owners(digests)

    monkeypatch.setattr(accounts, "find_owners", slowly)
    application = Edge(django_application)

    async def flood() -> list[int]:
        shown = [f"crp_bot_{number}" for number in range(50)] + [bot]
        answers = [ask(application, authorization=f"Bearer {token}") for token in shown]
        return [answer.status for answer in await asyncio.gather(*answers)]

    assert async_to_sync(flood)() == [401] * 50 + [200]
    assert (max(at_once), sum(asked)) == (1, 51)


def test_a_failed_token_query_is_repeated_and_an_aborted_one_serves_others(
    bot: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    owners, digest, find_owners = freshness.TokenOwners(), accounts.hash_token(bot), accounts.find_owners
    is_broken = True

    def sometimes(digests: Any) -> Any:
        if is_broken and digests:
            raise OperationalError("the database went away")
        return find_owners(digests)

    monkeypatch.setattr(accounts, "find_owners", sometimes)

    async def story() -> None:
        nonlocal is_broken
        both = await asyncio.gather(
            owners.look_up([digest]), owners.look_up(["other"]), return_exceptions=True
        )
        assert [type(one) for one in both] == [OperationalError, OperationalError]
        is_broken = False
        given_up, waiting = (asyncio.ensure_future(owners.look_up([digest])) for _ in range(2))
        await asyncio.sleep(0)
        given_up.cancel()
        found = (await waiting)[digest]
        assert found is not None and found.is_bot

    async_to_sync(story)()


@pytest.fixture
def lose_database(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    async def fail(query: Any, argument: Any) -> Any:
        raise OperationalError("the database went away")

    return lambda: monkeypatch.setattr(freshness, "query_database", fail)


def test_without_a_database_a_known_token_gets_the_last_signed_snapshot(
    fresh: Edge, bot: str, lose_database: Callable[[], None]
) -> None:
    scenarios.service_in_use()
    before = get(fresh, bot, path=SIGNED_PATH)
    lose_database()
    after = get(fresh, bot, path=SIGNED_PATH)
    assert (after.status, after.body) == (200, before.body)
    assert get(fresh, "crp_bot_made_up", path=SIGNED_PATH).status == 503


def test_without_a_database_plain_snapshot_and_keys_last_as_the_signed_one(
    fresh: Edge, bot: str, lose_database: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    scenarios.service_in_use()
    get(fresh, bot, path=SIGNED_PATH)  # with the first key
    before, key_sets = snapshot.build_current(), get(fresh, bot, path=KEYS_PATH)
    lose_database()
    after = get(fresh, bot)
    assert (after.status, after.body, after.headers["etag"]) == (200, before.body, before.etag)
    assert get(fresh, bot, path=KEYS_PATH).body == key_sets.body
    later = timezone.now() + signing.VALID_FOR
    monkeypatch.setattr(timezone, "now", lambda: later)
    assert [get(fresh, bot, path=path).status for path in (ACTIVE_PATH, KEYS_PATH)] == [503, 503]


def test_without_a_database_keys_are_not_older_than_the_snapshot(
    fresh: Edge, bot: str, lose_database: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bot that asks because the snapshot names a newer set would take the older ones for the answer."""
    scenarios.service_in_use()
    get(fresh, bot, path=KEYS_PATH)
    get(fresh, bot, path=SIGNED_PATH)  # makes the first key
    lose_database()
    assert get(fresh, bot, path=KEYS_PATH).status == 503


def test_without_a_database_no_lower_revision_follows_a_higher_one(
    fresh: Edge, bot: str, lose_database: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pin was seen as a plain snapshot, and could not be signed: the model before it must not come back."""
    scenarios.service_in_use()
    scenarios.fallback()
    get(fresh, bot, path=SIGNED_PATH)
    decide.pin(actor=APPROVER, reason="V6 is broken")
    monkeypatch.setattr(freshness, "FRESH_SECONDS", 0.0)
    assert json.loads(get(fresh, bot).body)["revision"] == 2
    lose_database()
    assert get(fresh, bot).status == 503


def test_without_a_database_the_plain_snapshot_is_built_once_for_all(
    fresh: Edge, bot: str, lose_database: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    scenarios.service_in_use()
    get(fresh, bot, path=SIGNED_PATH)
    lose_database()
    built, to_json = list[Any](), snapshot.to_json

    def counted(document: Any) -> bytes:
        built.append(document)
        return to_json(document)

    monkeypatch.setattr(snapshot, "to_json", counted)
    assert get(fresh, "crp_bot_made_up").status == 503
    assert built == [], "a token that may read nothing costs nothing"
    assert [get(fresh, bot).status for _ in range(3)] == [200, 200, 200]
    assert len(built) <= 1


def test_without_a_database_or_a_signed_snapshot_nothing_is_served(
    fresh: Edge, bot: str, lose_database: Callable[[], None]
) -> None:
    scenarios.service_in_use()
    get(fresh, bot)
    lose_database()
    assert get(fresh, bot).status == 503, "an unsigned document does not say until when it is valid"


def test_without_a_database_a_revoked_token_stays_revoked(
    fresh: Edge, bot: str, lose_database: Callable[[], None]
) -> None:
    scenarios.service_in_use()
    get(fresh, bot, path=SIGNED_PATH)
    accounts.revoke_token(ApiToken.objects.get(), actor="the tests")
    assert get(fresh, bot, path=SIGNED_PATH).status == 401
    lose_database()
    assert get(fresh, bot, path=SIGNED_PATH).status == 503


def test_without_a_database_an_expired_snapshot_is_not_served(
    fresh: Edge, bot: str, lose_database: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    scenarios.service_in_use()
    get(fresh, bot, path=SIGNED_PATH)
    lose_database()
    later = timezone.now() + signing.VALID_FOR
    monkeypatch.setattr(timezone, "now", lambda: later)
    assert get(fresh, bot, path=SIGNED_PATH).status == 503


def test_all_tokens_that_were_shown_are_looked_up_by_one_question(fresh: Edge) -> None:
    scenarios.service_in_use()
    tokens = [factories.token(factories.person(f"bot{number}"), "bot") for number in range(5)]
    for token in tokens:
        assert get(fresh, token).status == 200
    digests = [accounts.hash_token(token) for token in tokens]
    accounts.revoke_token(ApiToken.objects.get(digest=digests[2]), actor="the tests")
    with CaptureQueriesContext(connection) as asked:
        actors = accounts.find_owners(digests)
    assert sorted(actors) == sorted({*digests} - {digests[2]})
    assert len(asked) == 2  # the tokens with their users, and the users' grants


def look_up(owners: freshness.TokenOwners, *digests: str) -> dict[str, Any]:
    return async_to_sync(owners.look_up)(digests)


def test_known_tokens_cost_one_question_for_changes_however_many_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(freshness, "FRESH_SECONDS", -1.0)
    owners = freshness.TokenOwners()
    digests = [
        accounts.hash_token(factories.token(factories.person(f"bot{number}"), "bot")) for number in range(5)
    ]
    assert len([actor for actor in look_up(owners, *digests).values() if actor]) == 5
    asked = list[str]()
    query = freshness.query_database

    async def count(function: Any, argument: Any) -> Any:
        def run(argument: Any) -> Any:
            with CaptureQueriesContext(connection) as captured:
                answer = function(argument)
            asked.extend(one["sql"] for one in captured)
            return answer

        return await query(run, argument)

    monkeypatch.setattr(freshness, "query_database", count)
    look_up(owners, *digests)
    assert len(asked) == 1 and "audit_audithead" in asked[0]
    accounts.revoke_token(ApiToken.objects.get(digest=digests[2]), actor="the tests")
    asked.clear()
    assert look_up(owners, *digests)[digests[2]] is None
    assert len(asked) == 3, "the head, its new events, and the one token that changed"


def test_a_token_revoked_while_it_is_looked_up_is_not_remembered(
    bot: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(freshness, "FRESH_SECONDS", -1.0)
    owners, digest, find_owners = freshness.TokenOwners(), accounts.hash_token(bot), accounts.find_owners
    query = freshness.query_database

    async def revoke_during_query(function: Any, argument: Any) -> Any:
        answer = await query(function, argument)
        if function is find_owners and argument:
            await sync_to_async(accounts.revoke_token)(await ApiToken.objects.aget(), actor="the tests")
            await owners.look_up([])  # another request learns of the change before the answer is stored
        return answer

    monkeypatch.setattr(freshness, "query_database", revoke_during_query)
    look_up(owners, digest)
    assert owners.recall(digest) is None
    assert look_up(owners, digest) == {digest: None}


def test_a_token_changed_by_hand_is_noticed_and_an_unused_one_forgotten(
    bot: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(freshness, "FRESH_SECONDS", -1.0)
    owners, digest = freshness.TokenOwners(), accounts.hash_token(bot)
    monkeypatch.setattr(freshness, "KNOWN_SECONDS", 0.0)
    assert look_up(owners, digest)[digest]
    ApiToken.objects.update(revoked_at=timezone.now())
    assert look_up(owners, digest) == {digest: None}
    look_up(owners)
    assert len(owners) == 0


def test_a_known_token_ends_when_it_expires(bot: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ApiToken.objects.update(expires_at=timezone.now() + timedelta(minutes=1))
    owners, digest = freshness.TokenOwners(), accounts.hash_token(bot)
    assert look_up(owners, digest)[digest]
    later = timezone.now() + timedelta(minutes=2)
    monkeypatch.setattr(timezone, "now", lambda: later)
    assert look_up(owners, digest) == {digest: None}
    assert owners.recall(digest) is None
