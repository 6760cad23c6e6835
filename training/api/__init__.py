"""Coins, datasets, runs, workers and the bytes of bundles, for programs."""
