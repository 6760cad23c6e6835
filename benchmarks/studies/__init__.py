"""Studies against random search on simulated markets, and what they release where there is nothing to learn."""
