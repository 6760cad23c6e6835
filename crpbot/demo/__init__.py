"""`make demo`: the whole service on one machine, its story told once from candles to prediction, then served.

`ground` looks whether it can start, `processes` keeps servers and workers alive under supervisor, `story` does what
people and programs would do, `screen` shows it.
"""
