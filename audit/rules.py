"""The chain's arithmetic: canonical text, hashes, and what a sound chain looks like."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

GENESIS = "0" * 64


def to_canonical_json(document: Mapping[str, Any]) -> str:
    """One text for one content: sorted keys, no spaces, no NaN (raises ValueError)."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def hash_event(previous_hash: str, body: str) -> str:
    """The hash of an event: sha256 over its predecessor's hash and its own canonical text."""
    return hashlib.sha256(f"{previous_hash}\n{body}".encode()).hexdigest()


@dataclass(frozen=True)
class Link:
    """One event as stored: what the chain check reads."""

    seq: int
    previous_hash: str
    hash: str
    body: str
    columns: Mapping[str, Any]


@dataclass(frozen=True)
class ChainBreak:
    """A place where the chain does not hold."""

    seq: int
    problem: str


def find_breaks(links: Iterable[Link], *, head_seq: int, head_hash: str) -> Iterator[ChainBreak]:
    """Every place where a chain, read in order, is not what was once written."""
    seq, previous = 0, GENESIS
    for link in links:
        if link.seq != seq + 1:
            yield ChainBreak(link.seq, f"event {seq + 1} is missing before it")
        if link.previous_hash != previous:
            yield ChainBreak(link.seq, "does not follow from the event before it")
        if link.hash != hash_event(link.previous_hash, link.body):
            yield ChainBreak(link.seq, "its text was changed after it was written")
        stored = json.loads(link.body)
        changed = sorted(name for name, value in link.columns.items() if stored.get(name) != value)
        if changed:
            yield ChainBreak(link.seq, f"its columns differ from its text: {', '.join(changed)}")
        seq, previous = link.seq, link.hash
    if (seq, previous) != (head_seq, head_hash):
        yield ChainBreak(
            head_seq, f"the chain ends at {seq}, its head says {head_seq}: the tail was cut or rewritten"
        )
