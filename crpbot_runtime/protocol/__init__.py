"""What the service and a bot exchange: snapshot, envelope, server-sent events, HTTP."""
