"""The gates: what each reads, its thresholds, and its verdict. Pure functions; no ORM, clock or I/O."""
