"""Checks of candles before anything is trained on them."""
