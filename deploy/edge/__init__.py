"""The bots' hot path, an ASGI application in front of Django: answers from memory, streams, and heartbeats gathered."""
