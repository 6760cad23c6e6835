"""The hash chain: canonical JSON, hashes, and the check of a chain."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

GENESIS = "0" * 64


def to_canonical_json(document: Mapping[str, Any]) -> str:
    """The same text for equal content: sorted keys, no spaces. Raises ValueError for NaN."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def hash_event(previous_hash: str, body: str) -> str:
    """The hash of an event: sha256 of the previous event's hash and its own canonical JSON."""
    return hashlib.sha256(f"{previous_hash}\n{body}".encode()).hexdigest()


@dataclass(frozen=True)
class Link:
    """A stored event, as the check of the chain reads it."""

    seq: int
    previous_hash: str
    hash: str
    body: str
    columns: Mapping[str, Any]


@dataclass(frozen=True)
class ChainBreak:
    """An event at which the chain is broken."""

    seq: int
    problem: str


def find_breaks(links: Iterable[Link], *, head_seq: int, head_hash: str) -> Iterator[ChainBreak]:
    """Every break of a chain that is read in order."""
    seq, previous_hash = 0, GENESIS
    for link in links:
        if link.seq != seq + 1:
            yield ChainBreak(link.seq, f"event {seq + 1} is missing before it")
        if link.previous_hash != previous_hash:
            yield ChainBreak(link.seq, "its previous hash is not that of the event before it")
        if link.hash != hash_event(link.previous_hash, link.body):
            yield ChainBreak(link.seq, "its body was changed after it was written")
        stored = json.loads(link.body)
        changed = sorted(name for name, value in link.columns.items() if stored.get(name) != value)
        if changed:
            yield ChainBreak(link.seq, f"its columns differ from its body: {', '.join(changed)}")
        seq, previous_hash = link.seq, link.hash
    if (seq, previous_hash) != (head_seq, head_hash):
        yield ChainBreak(
            head_seq,
            f"the chain ends at {seq}, but its head is {head_seq}: the tail was deleted or rewritten",
        )
