"""`make demo`: the whole service on one machine, from candles to predictions, and then left running.

`preflight` checks the machine, `processes` keeps servers and workers running under supervisor, `scenario` does what people
and programs would do, `terminal` shows progress.
"""
