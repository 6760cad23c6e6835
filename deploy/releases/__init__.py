"""Releases: launched, settled, decided, and shown."""
