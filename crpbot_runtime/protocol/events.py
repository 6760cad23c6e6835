"""Server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html): bytes in, whole events out.

Input may be cut anywhere, may never end, and may be no stream at all. At most one event is held in memory.
"""

import re
from typing import NamedTuple

from crpbot_runtime.errors import StreamRefused
from crpbot_runtime.protocol.envelope import MAX_ENVELOPE_BYTES

MAX_EVENT_BYTES = MAX_ENVELOPE_BYTES + 4096

_FIELD = re.compile(rb"[a-z][a-z-]{0,20}")


class Event(NamedTuple):
    name: str
    data: bytes


class EventParser:
    """Parses one stream. An incomplete event is never returned."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._name = b""
        self._data: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> list[Event]:
        """The events completed by this chunk. Raises StreamRefused for anything else, and for an event without end."""
        self._rest += chunk
        self._size += len(chunk)
        events: list[Event] = []
        if b"\n" in chunk:
            *lines, rest = bytes(self._rest).split(b"\n")
            self._rest = bytearray(rest)
            events = [event for line in lines if (event := self._parse_line(line.removesuffix(b"\r")))]
        if self._size > MAX_EVENT_BYTES:
            raise StreamRefused(f"the stream sends more than the {MAX_EVENT_BYTES:,} bytes an event may have")
        return events

    def _parse_line(self, line: bytes) -> Event | None:
        if not line:
            return self._finish_event()
        name, _, value = line.partition(b":")
        if name and not _FIELD.fullmatch(name):
            raise StreamRefused("what comes is no stream of events")
        value = value.removeprefix(b" ")
        if name == b"event":
            self._name = value
        elif name == b"data":
            self._data.append(value)
        return None

    def _finish_event(self) -> Event | None:
        name, data = self._name.decode("ascii", "replace"), self._data
        self._name, self._data, self._size = b"", [], len(self._rest)
        return Event(name, b"\n".join(data)) if data else None
