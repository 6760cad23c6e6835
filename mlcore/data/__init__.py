"""Candles: reading files, checking their rows, simulating a market."""
