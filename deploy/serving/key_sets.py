"""The keys that bots trust, as sets that they follow by themselves: each signed by keys of the set before.

As the root of The Update Framework (https://theupdateframework.github.io/specification). A set is published in the
transaction that changes the keys, so the latest one always has every key that is not retired.
`crpbot_runtime.protocol.public_keys` is the bot's side.
"""

import json
from collections.abc import Mapping

from django.db.models import Max
from securesystemslib.dsse import Envelope
from securesystemslib.signer import CryptoSigner

from audit.hash_chain import to_canonical_json
from deploy.models import KeySet, SigningKey
from deploy.rules import KeyState
from deploy.serving import snapshot
from deploy.serving.snapshot import Snapshot

PAYLOAD_TYPE = "application/vnd.crpbot.keys+json"
MOST_SENT = 200
"""A bot that missed more changes is given the public key by hand."""


def get_version() -> int:
    """The version of the latest set; 0 before the first."""
    return KeySet.objects.aggregate(version=Max("version"))["version"] or 0


def publish(signers: Mapping[str, CryptoSigner]) -> KeySet:
    """Append the set of all keys that are not retired, signed by every key of the last set that is among `signers`, by id.

    If none is, every private half of the last set is lost. The set is then signed by its own keys: no bot follows it by
    itself, and each must be given the public key by hand. The caller is in the transaction that changed the keys, under the
    lock of the audit head.
    """
    last = KeySet.objects.first()
    keys = list(SigningKey.objects.exclude(state=KeyState.RETIRED).order_by("pk"))
    own = [key.key_id for key in keys]
    version = last.version + 1 if last else 1
    document = {
        "service": snapshot.get_service_name(),
        "version": version,
        "keys": [key.public_hex for key in keys],
    }
    signed = Envelope(to_canonical_json(document).encode(), PAYLOAD_TYPE, {})
    trusted = [key_id for key_id in last.key_ids if key_id in signers] if last else []
    for key_id in trusted or [key_id for key_id in own if key_id in signers]:
        signed.sign(signers[key_id])
    body = json.dumps(signed.to_dict(), separators=(",", ":"))
    return KeySet.objects.create(version=version, key_ids=own, body=body)


def build_chain(known: Snapshot | None = None) -> Snapshot:
    """The latest sets as one document, the oldest first; `known` if that is still the latest. `revision` is the version."""
    version = get_version()
    if known is not None and known.revision == version:
        return known
    bodies = KeySet.objects.order_by("-version").values_list("body", flat=True)[:MOST_SENT]
    return Snapshot(version, b'{"key_sets":[%b]}' % ",".join(reversed(bodies)).encode())
