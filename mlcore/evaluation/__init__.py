"""Measuring a bundle on candles: every figure that a gate decides by or a page draws."""
