"""Signed statements that a second training gave the same model, in the format of in-toto.

A statement (https://github.com/in-toto/attestation, Statement v1) names the files that both trainings gave by their digest.
It is signed as snapshots are: a DSSE envelope with an Ed25519 signature by each active key. `reconcile` signs, because
workers have no key. A snapshot names the statements that were signed before its move.
"""

import hashlib
import json
import logging
from typing import Any

from securesystemslib.dsse import Envelope

from accounts.roles import GATE
from audit import services as audit
from audit.hash_chain import to_canonical_json
from common.errors import NotFound, Unavailable
from deploy.models import ReleaseCoin, Statement
from deploy.rules import ReleaseState
from deploy.serving import keys
from mlcore.bundle.format import MODEL_FILE
from training.models import Bundle, TrainingRun
from training.rules import JobState

logger = logging.getLogger(__name__)

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "urn:crpbot:reproduction:1"

_DECIDABLE = (ReleaseState.BUILDING, ReleaseState.AWAITING_APPROVAL, ReleaseState.LIVE, ReleaseState.STANDBY)


def sign_due() -> None:
    """Sign a statement for each bundle of an open release whose model two workers made, bit for bit. Safe to repeat.

    Without a key to sign with it waits: then nothing is signed for the bots either, and an alarm says so.
    """
    rows = ReleaseCoin.objects.filter(
        release__is_reproduced=True,
        release__status__state__in=_DECIDABLE,
        bundle__isnull=False,
        bundle__statement=None,
        run__reproductions__state=JobState.SUCCEEDED,
    )
    for release_coin in rows.select_related("run", "bundle").distinct():
        assert release_coin.run is not None
        second = release_coin.run.reproductions.filter(state=JobState.SUCCEEDED).first()
        if second is None:
            continue
        try:
            _sign_if_equal(release_coin.run, second)
        except Unavailable as missing:
            logger.warning("no statement about %s: %s", release_coin.bundle, missing)
            return


def find_statement(bundle: Bundle) -> Statement:
    """Raises NotFound."""
    statement = Statement.objects.filter(bundle=bundle).first()
    if statement is None or not statement.is_intact:
        raise NotFound(
            f"There is no statement about {bundle}: a launch with a second training of each model makes one, where a second"
            " worker got the same files."
        )
    return statement


def _sign_if_equal(first: TrainingRun, second: TrainingRun) -> None:
    if first.bundle is None or second.bundle is None or first.worker_name == second.worker_name:
        return
    files, others = (_list_files(run.bundle) for run in (first, second) if run.bundle)
    equal = {name: sha256 for name, sha256 in files.items() if others.get(name) == sha256}
    if MODEL_FILE not in equal:
        return
    signers = [keys.load_signer(key) for key in keys.require_active()]
    signed = Envelope(to_canonical_json(_build_statement(first, second, equal)).encode(), PAYLOAD_TYPE, {})
    for signer in signers:
        signed.sign(signer)
    body = json.dumps(signed.to_dict(), separators=(",", ":"))
    sha256 = hashlib.sha256(body.encode()).hexdigest()
    with audit.locked():
        if Statement.objects.filter(bundle=first.bundle).exists():
            return  # another process was first
        detail = {"statement": sha256, "runs": [first.pk, second.pk], "files": sorted(equal)}
        event = audit.record("bundle.reproduced", first.bundle, actor=GATE, detail=detail)
        Statement.objects.create(
            bundle=first.bundle, run=second, body=body, sha256=sha256, audit_seq=event.seq
        )
    logger.info("%s: %s and %s made the same model", first.bundle, first, second)


def _list_files(bundle: Bundle) -> dict[str, str]:
    return dict(bundle.artifacts.values_list("name", "sha256"))


def _build_statement(first: TrainingRun, second: TrainingRun, equal: dict[str, str]) -> dict[str, Any]:
    assert first.bundle is not None
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": sha256}} for name, sha256 in sorted(equal.items())],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "bundle": first.bundle.digest,
            "coin": first.coin.symbol,
            "line": first.line,
            "recipe": first.recipe,
            "package": first.package,
            "parameters": first.parameters,
            "seed": first.seed,
            "candles": first.dataset.digest,
            "trainings": [_describe_training(run) for run in (first, second)],
        },
    }


def _describe_training(run: TrainingRun) -> dict[str, Any]:
    assert run.bundle is not None and run.finished_at is not None
    return {
        "run": run.pk,
        "worker": run.worker_name,
        "device": run.device,
        "code_version": run.code_version,
        "bundle": run.bundle.digest,
        "finished_at": run.finished_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
