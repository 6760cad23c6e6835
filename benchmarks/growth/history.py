"""A history of so many releases on PostgreSQL: a few rows made by the service, multiplied by SQL and COPY.

Rows are multiplied with the triggers off, because a million of them would take hours through the services. What is read is
as the service writes it: texts of full length, a whole audit chain with valid hashes and codes.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple

from django.conf import settings
from django.core.management import call_command
from django.db import connection, transaction
from django.db.models import Q
from django.utils import timezone
from django.utils.crypto import salted_hmac

from accounts import services as accounts
from accounts.models import ApiToken, User
from accounts.roles import Actor, Scope
from audit import services as audit
from audit.hash_chain import hash_event, to_canonical_json
from audit.models import AuditEvent, AuditHead
from deploy.bots import heartbeats, live_gates
from deploy.models import Bot, Release
from deploy.pointer import pointer
from deploy.releases import decide
from gates.catalogue.live import Tally
from gates.context import record_attempts
from mlcore.confidence_bands import BANDS
from tests import factories, scenarios
from training.models import Coin, Epoch, RunLine, TrainingRun
from training.rules import JobState

STRIDE = 100_000
"""Between the keys of two copies of a row: more than any row that the service made itself has."""
EPOCHS = 50
"""Epochs, and lines of the log, of each run: 150 of each for a release of three coins."""
EVENTS = 100
"""Audit events for each release."""
WINDOWS = 100
"""Live windows for each bot."""
MOVES = 20
"""Moves of the pointer, each acknowledged by every bot."""
TOKEN = "crp_bot_growth_{}"
CERTAIN_LOGIT = 3.0


class Copies(NamedTuple):
    """The numbers of the copies to make, from 1."""

    first: int
    last: int


@dataclass(frozen=True)
class History:
    """What was built: the last release that was rejected, and how many bots with tokens there are, from number 1 on."""

    releases: int
    bots: int
    release: int


def build(releases: int) -> History:
    """Fill an empty database. There is one bot, with a token of its own, for each release."""
    call_command("migrate", verbosity=0)
    return multiply(prepare(), releases)


def prepare() -> Release:
    """What the service makes itself: a live release, a fallback, and a rejected candidate, which is returned."""
    scenarios.service_in_use()
    live = scenarios.awaiting_approval(seed=2)
    decide.approve(live, actor=scenarios.APPROVER, reason="passed", revision=1)
    prototype = _build_prototype()
    _move_pointer(live)
    return prototype


def multiply(prototype: Release, releases: int, *, already: int = 1) -> History:
    """Copy the candidate until there are so many, with their events, bots and windows; `already` says how many there are."""
    with connection.cursor() as cursor:
        # A million rows in one statement take longer than the service allows any of its own.
        cursor.execute("SET statement_timeout = 0")
        cursor.execute("SET idle_in_transaction_session_timeout = 0")
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL session_replication_role = replica")
        cursor.execute("SET LOCAL synchronous_commit = off")
        copies = Copies(already, releases - 1)
        _multiply_release(cursor, prototype, copies)
        _multiply_bots(cursor, copies)
        _append_events(cursor, prototype, copies)
    with transaction.atomic():
        audit.lock_head()
        record_attempts()
    _reset_sequences()
    with connection.cursor() as cursor:
        cursor.execute("VACUUM (ANALYZE)")
        cursor.execute("RESET statement_timeout")
        cursor.execute("RESET idle_in_transaction_session_timeout")
    return History(releases, releases - 1, prototype.pk + (releases - 1) * STRIDE)


def _build_prototype() -> Release:
    """A rejected candidate as the service leaves it, with runs, epochs and logs."""
    figures = scenarios.for_every_coin(scenarios.inaccurate)
    release = scenarios.Build(seed=99, figures=figures).settled()
    for release_coin in release.coins.all():
        run = TrainingRun.objects.create(
            coin=release_coin.coin,
            dataset=release_coin.dataset,
            line=release.line,
            recipe=release.line,
            seed=99,
            epochs=EPOCHS,
            budget=release.budget,
            launched_by=release.launched_by,
            bundle=release_coin.bundle,
            state=JobState.SUCCEEDED,
            attempt=1,
            started_at=timezone.now(),
            finished_at=timezone.now(),
        )
        release.coins.filter(pk=release_coin.pk).update(run=run)
        losses: dict[str, Any] = {"train_loss": 1.0, "validation_loss": 1.0, "validation_accuracy": 0.5}
        Epoch.objects.bulk_create(
            Epoch(
                run=run, number=n, attempt=1, seconds=1.0, rows_per_second=1.0, is_best=n == EPOCHS, **losses
            )
            for n in range(1, EPOCHS + 1)
        )
        RunLine.objects.bulk_create(
            RunLine(run=run, attempt=1, text=f"epoch {n}: loss 1.0000, accuracy 50.0 %")
            for n in range(EPOCHS)
        )
    return release


def _move_pointer(live: Release) -> None:
    """Pin and restore until there are MOVES moves; the live release is in use at the end."""
    for number in range((MOVES - 2) // 2):
        decide.pin(actor=scenarios.APPROVER, reason=f"pin {number}")
        now = pointer.get_current()
        assert now is not None
        decide.restore(
            Release.objects.get(pk=live.pk),
            actor=scenarios.SECOND_APPROVER,
            reason=f"restore {number}",
            revision=now.revision,
        )


def _copy_rows(
    cursor: Any, table: str, where: str, copies: Copies, changes: Mapping[str, str], *, key: str = "id"
) -> None:
    """Copy rows. `changes` are SQL expressions of `g`, the number of the copy."""
    with connection.cursor() as described:
        columns = [one.name for one in connection.introspection.get_table_description(described, table)]
    expressions = {key: f"t.{key} + g * {STRIDE}"} | dict(changes)
    chosen = ", ".join(expressions.get(column, f't."{column}"') for column in columns)
    names = ", ".join(f'"{column}"' for column in columns)
    cursor.execute(
        f"INSERT INTO {table} ({names}) SELECT {chosen} FROM {table} t CROSS JOIN generate_series(%s, %s) g"
        f" WHERE {where} ORDER BY g, t.{key}",
        list(copies),
    )


def _moved(column: str) -> dict[str, str]:
    return {column: f"t.{column} + g * {STRIDE}"}


def _digest(column: str) -> str:
    return f"'sha256:' || encode(sha256((t.{column} || g)::bytea), 'hex')"


def _multiply_release(cursor: Any, release: Release, copies: Copies) -> None:
    bundles = f"SELECT bundle_id FROM deploy_releasecoin WHERE release_id = {release.pk}"
    found = f"SELECT run_id FROM deploy_releasecoin WHERE release_id = {release.pk}"
    diagnoses = f"SELECT diagnosis_id FROM deploy_releasecoin WHERE release_id = {release.pk}"
    own = f"= {release.pk}"
    _copy_rows(cursor, "training_budget", f"t.id = {release.budget_id}", copies, {})
    _copy_rows(cursor, "training_bundle", f"t.id IN ({bundles})", copies, {"digest": _digest("digest")})
    _copy_rows(cursor, "training_artifact", f"t.bundle_id IN ({bundles})", copies, _moved("bundle_id"))
    moved = _moved("budget_id") | _moved("bundle_id")
    _copy_rows(cursor, "training_trainingrun", f"t.id IN ({found})", copies, moved)
    for table in ("training_epoch", "training_runline"):
        _copy_rows(cursor, table, f"t.run_id IN ({found})", copies, _moved("run_id"))
    _copy_rows(cursor, "gates_measurement", f"t.bundle_id IN ({bundles})", copies, _moved("bundle_id"))
    moved = _moved("bundle_id") | _moved("measurement_id")
    _copy_rows(cursor, "gates_diagnosis", f"t.id IN ({diagnoses})", copies, moved)
    _copy_rows(cursor, "gates_gateresult", f"t.diagnosis_id IN ({diagnoses})", copies, _moved("diagnosis_id"))
    _copy_rows(cursor, "deploy_release", f"t.id {own}", copies, _moved("budget_id"))
    _copy_rows(cursor, "deploy_releasestatus", f"t.release_id {own}", copies, {}, key="release_id")
    moved = {}
    for column in ("release_id", "run_id", "bundle_id", "diagnosis_id"):
        moved |= _moved(column)
    _copy_rows(cursor, "deploy_releasecoin", f"t.release_id {own}", copies, moved)
    used = f"SELECT dataset_id FROM deploy_releasecoin WHERE release_id {own}"
    datasets = {"digest": _digest("digest"), "last_at": "t.last_at + g * interval '1 hour'"}
    _copy_rows(
        cursor,
        "training_dataset",
        f"t.id IN ({used})",
        Copies(copies.first, max(copies.first, copies.last // 10)),
        datasets,
    )


def _create_first_bot() -> None:
    person = factories.person("growth-0")
    accounts.issue_token(person, Scope.BOT, name="growth", actor="the benchmark")
    move = pointer.get_current()
    assert move is not None
    actor = Actor("growth-0", is_bot=True)
    heartbeats.receive_heartbeat(scenarios.heartbeat(move), actor=actor)
    tally = Tally(10, 0, (4, 3, 3), (0,) * 8 + (10,) + (0,) * (BANDS - 9), -CERTAIN_LOGIT, CERTAIN_LOGIT)
    posted = scenarios.posted_window(tally, move.revision, timezone.now() - timedelta(days=1))
    live_gates.receive_window(posted, actor=actor)


def _multiply_bots(cursor: Any, bots: Copies) -> None:
    if bots.first == 1:
        _create_first_bot()
    person, bot = User.objects.get(username="growth-0"), Bot.objects.get(name="growth-0")
    _copy_rows(cursor, "accounts_user", f"t.id = {person.pk}", bots, {"username": "'growth-' || g"})
    digest = f"encode(sha256(('{TOKEN.format('')}' || g)::bytea), 'hex')"
    moved = {"digest": digest} | _moved("user_id")
    _copy_rows(cursor, "accounts_apitoken", f"t.user_id = {person.pk}", bots, moved)
    _copy_rows(cursor, "deploy_bot", f"t.id = {bot.pk}", bots, {"name": "'growth-' || g"})
    cursor.execute(
        "INSERT INTO deploy_acknowledgement (bot_id, move_id, at, seconds)"
        " SELECT b.id, m.revision, m.moved_at, 1.0 FROM deploy_bot b CROSS JOIN deploy_pointermove m"
        " ON CONFLICT DO NOTHING"
    )
    _insert_windows(cursor)


def _insert_windows(cursor: Any) -> None:
    """WINDOWS windows of each bot under the current revision, in turns for each coin, and their totals."""
    with connection.cursor() as described:
        columns = [
            one.name for one in connection.introspection.get_table_description(described, "deploy_livewindow")
        ]
    coins = list(Coin.objects.filter(symbol__in=scenarios.COINS).values_list("pk", flat=True))
    changes = {
        "bot_id": "b.id",
        "coin_id": f"(ARRAY{coins})[1 + g % {len(coins)}]",
        "first_at": "w.first_at + g * interval '1 minute'",
        "last_at": "w.last_at + g * interval '1 minute'",
        "received_at": "w.received_at - interval '2 hours' + g * interval '1 minute'",
    }
    names = [column for column in columns if column != "id"]
    chosen = ", ".join(changes.get(column, f"w.{column}") for column in names)
    cursor.execute(
        f"INSERT INTO deploy_livewindow ({', '.join(names)}) SELECT {chosen}"
        " FROM (SELECT * FROM deploy_livewindow ORDER BY id LIMIT 1) w"
        f" CROSS JOIN deploy_bot b CROSS JOIN generate_series(1, {WINDOWS - 1}) g ORDER BY g, b.id ON CONFLICT DO NOTHING"
    )
    recent = (
        "jsonb_build_array(jsonb_build_object('first_at', max(first_at), 'tally',"
        " (SELECT recent -> 0 -> 'tally' FROM deploy_livetotal LIMIT 1)))"
    )
    cursor.execute(
        "CREATE TEMP TABLE sums ON COMMIT DROP AS SELECT bot_id, move_id, coin_id, sum(predictions) predictions,"
        " sum(non_finite) non_finite, sum(down) down, sum(neutral) neutral, sum(up) up, 0 out_of_range, 0 ranged,"
        f" {recent} recent, max(first_at) last_first_at, max(received_at) received_at, '' breach, '' warning"
        " FROM deploy_livewindow GROUP BY bot_id, move_id, coin_id"
    )
    cursor.execute("DELETE FROM deploy_livetotal")
    total = (
        "bot_id, move_id, coin_id, predictions, non_finite, down, neutral, up, out_of_range, ranged, recent,"
        " last_first_at, received_at, breach, warning"
    )
    cursor.execute(f"INSERT INTO deploy_livetotal ({total}) SELECT {total} FROM sums")


def _append_events(cursor: Any, release: Release, copies: Copies) -> None:
    """EVENTS events for each copy by COPY, with valid hashes: those of the rows that were copied, and a worker's."""
    head = AuditHead.objects.get(pk=1)
    seq, previous, now = head.seq, head.hash, timezone.now()
    copied = _list_events_to_copy(release)
    columns = [str(field.column) for field in AuditEvent._meta.concrete_fields]
    with cursor.copy(f"COPY audit_auditevent ({', '.join(columns)}) FROM STDIN") as copy:
        for number in range(copies.first, copies.last + 1):
            events = [_copy_event(event, number) for event in copied]
            events += [_build_filler(number * EVENTS + n) for n in range(EVENTS - len(events))]
            for event, detail in events:
                seq += 1
                event.seq, event.at, event.previous_hash = seq, now, previous
                event.body = to_canonical_json({**event.build_columns(), "detail": detail})
                event.hash = previous = hash_event(previous, event.body)
                event.mac = salted_hmac(
                    "crpbot.audit", event.hash, secret=settings.SECRET_KEY, algorithm="sha256"
                ).hexdigest()
                copy.write_row([getattr(event, field.attname) for field in AuditEvent._meta.concrete_fields])
    AuditHead.objects.filter(pk=1).update(seq=seq, hash=previous)


def _list_events_to_copy(release: Release) -> list[AuditEvent]:
    """What the service recorded of the rows that are copied: `verify_audit` compares both."""
    release_coins = release.coins.select_related("diagnosis")
    diagnoses = [row.diagnosis for row in release_coins if row.diagnosis]
    person = User.objects.get(username="growth-0")
    keys = {
        "release": [release.pk],
        "releasestatus": [release.pk],
        "measurement": [diagnosis.measurement_id for diagnosis in diagnoses],
        "diagnosis": [diagnosis.pk for diagnosis in diagnoses],
        "user": [person.pk],
        "apitoken": list(ApiToken.objects.filter(user=person).values_list("pk", flat=True)),
    }
    about = Q()
    for object_type, numbers in keys.items():
        about |= Q(object_type=object_type, object_id__in=[str(number) for number in numbers])
    return list(AuditEvent.objects.filter(about).order_by("seq"))


def _copy_event(event: AuditEvent, number: int) -> tuple[AuditEvent, dict[str, Any]]:
    """The event of a copied row, and its detail."""
    detail = json.loads(event.body)["detail"]
    person = f"growth-{number}"
    if event.object_type == "apitoken":
        detail |= {"user": person, "digest": hashlib.sha256(TOKEN.format(number).encode()).hexdigest()}
    copy = AuditEvent(
        actor=event.actor,
        kind=event.kind,
        object_type=event.object_type,
        object_id=str(int(event.object_id) + number * STRIDE),
        object_name=event.object_name.replace("growth-0", person),
        reason=event.reason,
    )
    return copy, detail


def _build_filler(number: int) -> tuple[AuditEvent, dict[str, Any]]:
    event = AuditEvent(
        actor=f"worker-{number % 200}",
        kind=KINDS[number % len(KINDS)],
        object_type="trainingrun",
        object_id=str(number),
        object_name=f"object {number}",
        reason="",
    )
    return event, {"padding": "x" * 200}


KINDS = ("trainingrun.queued", "trainingrun.running", "trainingrun.succeeded", "measurement.queued")


def _reset_sequences() -> None:
    with connection.cursor() as cursor:
        for sequence in connection.introspection.sequence_list():
            table, column = sequence["table"], sequence["column"]
            cursor.execute(
                f"SELECT setval(pg_get_serial_sequence('{table}', '{column}'),"
                f" (SELECT COALESCE(MAX({column}), 1) FROM {table}))"
            )
