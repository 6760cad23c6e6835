"""The snapshot, releases, moves and decisions, for programs."""
