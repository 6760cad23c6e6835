"""The version of the client, as bots tell it the service and as its wheel carries it, and that of its protocol."""

VERSION = "0.1.0"

PROTOCOL = 2
"""In which this client reads snapshots and writes heartbeats (rule 32, docs/rules.md#32)."""
OLDEST_READER = 2
"""The oldest service that understands a heartbeat of this client that states its protocol."""
FIRST_PROTOCOL = 1
"""Of a service whose snapshots state none. It refuses a heartbeat that does."""
