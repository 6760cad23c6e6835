"""An envelope as a server-sent event (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

from functools import lru_cache

from deploy.serving.snapshot import Snapshot

BEGINNING = b"retry: 2000\n\n"
"""Milliseconds until a generic client reconnects; our own client chooses a random delay."""
COMMENT = b": still here\n\n"


@lru_cache(maxsize=1)  # all subscribers share the same bytes
def format_event(envelope: Snapshot) -> bytes:
    """One event. The envelope's body is JSON on one line."""
    return b"id: %d\nevent: snapshot\ndata: %b\n\n" % (envelope.revision, envelope.body)
