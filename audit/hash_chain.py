"""The hash chain: canonical JSON and hashes."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

GENESIS = "0" * 64


def to_canonical_json(document: Mapping[str, Any]) -> str:
    """The same text for equal content: sorted keys, no spaces. Raises ValueError for NaN."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def hash_event(previous_hash: str, body: str) -> str:
    """The hash of an event: sha256 of the previous event's hash and its own canonical JSON."""
    return hashlib.sha256(f"{previous_hash}\n{body}".encode()).hexdigest()
