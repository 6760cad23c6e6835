"""Signed statements that a second training gave the same model, in the format of in-toto.

A statement (https://github.com/in-toto/attestation, Statement v1) names the files that both trainings gave by their digest.
It is signed as snapshots are: a DSSE envelope with an Ed25519 signature by each active key. `reconcile` signs, because
workers have no key. A snapshot names the statements that were signed before its move.
"""

import hashlib
import json
import logging
from collections.abc import Sequence
from typing import Any

from django.db.models import Exists, F, OuterRef, QuerySet
from securesystemslib.dsse import Envelope

from accounts.roles import GATE
from audit import services as audit
from audit.hash_chain import to_canonical_json
from audit.models import AuditEvent
from common.errors import NotFound, Unavailable
from deploy.models import Statement
from deploy.pointer import proof
from deploy.rules import ReleaseState
from deploy.serving import keys
from mlcore.bundle.format import MANIFEST_FILE, MODEL_FILE
from training.models import Artifact, Bundle, TrainingRun
from training.rules import JobState
from training.services.runs import describe_launch

logger = logging.getLogger(__name__)

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "urn:crpbot:reproduction:1"

_DECIDABLE = (ReleaseState.BUILDING, ReleaseState.AWAITING_APPROVAL, ReleaseState.LIVE, ReleaseState.STANDBY)


def sign_due() -> None:
    """Sign a statement for each bundle of an open release whose model two workers made, bit for bit. Safe to repeat.

    Without a key to sign with it waits: then nothing is signed for the bots either, and an alarm says so.
    """
    for second in _list_due():
        try:
            _sign_if_equal(second)
        except Unavailable as missing:
            logger.warning("no statement about the model of %s: %s", second, missing)
            return


def find_statement(bundle: Bundle) -> Statement:
    """Raises NotFound, and Unavailable for one that the audit chain does not know."""
    statement = Statement.objects.filter(bundle=bundle).first()
    if statement is None:
        raise NotFound(
            f"There is no statement about {bundle}: a launch with a second training of each model makes one, where a second"
            " worker got the same files."
        )
    if proof.find_forged_statement([statement]):
        raise Unavailable(f"This service did not write the statement about {bundle}. {proof.REMEDY}")
    return statement


def _list_due() -> QuerySet[TrainingRun]:
    """The second trainings whose graph equals that of the first, by another worker. Asked in every pass of `reconcile`."""
    graphs = Artifact.objects.filter(name=MODEL_FILE)
    firsts = graphs.filter(bundle=OuterRef(OuterRef("reproduces__bundle"))).values("sha256")
    rows = TrainingRun.objects.filter(
        Exists(graphs.filter(bundle=OuterRef("bundle"), sha256__in=firsts)),
        state=JobState.SUCCEEDED,
        reproduces__state=JobState.SUCCEEDED,
        reproduces__bundle__statement=None,
        reproduces__release_coin__release__status__state__in=_DECIDABLE,
    )
    related = ("coin", "dataset", "bundle", "reproduces__coin", "reproduces__dataset", "reproduces__bundle")
    return rows.exclude(worker_name=F("reproduces__worker_name")).select_related(*related)


def _sign_if_equal(second: TrainingRun) -> None:
    first = second.reproduces
    if first is None or first.bundle is None or second.bundle is None:
        return
    workers = [_list_proven_workers(run) for run in (first, second)]
    if not all(workers) or set(workers[0]) & set(workers[1]) or not _is_same_launch(first, second):
        return
    files, others = (_list_files(bundle) for bundle in (first.bundle, second.bundle))
    equal = {name: sha256 for name, sha256 in files.items() if others.get(name) == sha256}
    if MODEL_FILE not in equal:
        return
    signers = [keys.load_signer(key) for key in keys.require_active()]
    document = _build_statement(first, second, equal, workers)
    signed = Envelope(to_canonical_json(document).encode(), PAYLOAD_TYPE, {})
    for signer in signers:
        signed.sign(signer)
    body = json.dumps(signed.to_dict(), separators=(",", ":"))
    sha256 = hashlib.sha256(body.encode()).hexdigest()
    with audit.locked():
        if Statement.objects.filter(bundle=first.bundle).exists():
            return  # another process was first
        detail = {"statement": sha256, "runs": [first.pk, second.pk], "files": sorted(equal)}
        event = audit.record(Statement.EVENT, first.bundle, actor=GATE, detail=detail)
        Statement.objects.create(
            bundle=first.bundle, run=second, body=body, sha256=sha256, audit_seq=event.seq
        )
    logger.info("%s: %s and %s made the same model", first.bundle, first, second)


def _list_proven_workers(run: TrainingRun) -> list[str]:
    """Who held the run, where the audit chain shows that it was launched as its row says and gave its bundle; else nobody.

    Rows can be written by anyone who can write to the database, and then this service would vouch for them.
    """
    kinds = [f"trainingrun.{state}" for state in (JobState.QUEUED, JobState.SUCCEEDED, JobState.RUNNING)]
    rows = AuditEvent.objects.filter(object_type="trainingrun", object_id=str(run.pk), kind__in=kinds)
    events = list(rows.order_by("seq"))
    launched, ended, held = ([event for event in events if event.kind == kind] for kind in kinds)
    told = [json.loads(event.body)["detail"] for event in (*launched, *ended)]
    if len(launched) != 1 or len(ended) != 1 or not all(map(audit.is_authentic, events)):
        return []
    is_told = told[0] == describe_launch(run) and told[1].get("bundle") == (run.bundle and run.bundle.digest)
    return sorted({event.actor for event in held}) if is_told else []


def _is_same_launch(first: TrainingRun, second: TrainingRun) -> bool:
    return describe_launch(second) == {**describe_launch(first), "reproduces": first.pk}


def _list_files(bundle: Bundle) -> dict[str, str]:
    """The digests in the manifest, which the bundle's own digest covers; none where it does not."""
    digest = hashlib.sha256(bundle.manifest.encode()).hexdigest()
    if bundle.digest != f"sha256:{digest}":
        return {}
    listed = json.loads(bundle.manifest)["files"]
    return {MANIFEST_FILE: digest, **{name: entry["sha256"] for name, entry in listed.items()}}


def _build_statement(
    first: TrainingRun, second: TrainingRun, equal: dict[str, str], workers: Sequence[Sequence[str]]
) -> dict[str, Any]:
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
            "trainings": [
                _describe_training(run, names) for run, names in zip((first, second), workers, strict=True)
            ],
        },
    }


def _describe_training(run: TrainingRun, workers: Sequence[str]) -> dict[str, Any]:
    assert run.bundle is not None and run.finished_at is not None
    return {
        "run": run.pk,
        "workers": list(workers),
        "device": run.device,
        "code_version": run.code_version,
        "bundle": run.bundle.digest,
        "finished_at": run.finished_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
