"""A bot in forty lines: it decides every minute, and follows a rollback within a second. `make wheel` builds its client.

CRPBOT_URL=… CRPBOT_TOKEN=… CRPBOT_PUBLIC_KEY=… python example_bot.py BTC.csv ETH.csv  (`-m docs.example_bot` in a clone)
"""

import os
import signal
import sys
import threading
import time
from pathlib import Path

from crpbot_runtime import Active, Client, read_candles

EVERY_S = float(os.environ.get("BOT_EVERY_S", "60"))
MAX_AGE_S = float(os.environ.get("BOT_MAX_AGE_S", 0)) or None  # inf for candles of the past, as the demo's


def print_change(bot: Active) -> None:
    print(f"now: {bot.line}, release {bot.release}, revision {bot.revision}  {bot.problem or ''}", flush=True)


signal.signal(
    signal.SIGTERM, lambda *_: sys.exit()
)  # ends the block below, and so tells the service that it stops
files = {Path(path).name.partition(".")[0]: Path(path) for path in sys.argv[1:]}
url, token, key = (os.environ[f"CRPBOT_{name}"] for name in ("URL", "TOKEN", "PUBLIC_KEY"))
folder = os.environ.get("CRPBOT_CACHE_DIR", "var/models")
with Client(url, token, key, folder, coins=files, max_age_s=MAX_AGE_S) as client:
    threading.Thread(target=client.watch, args=(print_change,), daemon=True).start()
    while True:  # neutral until there is a model; a set from the last run is used at once
        for coin, file in files.items():
            decision = client.predict(coin, read_candles(file))  # your own candles here: 2,048 bars or more
            share = decision.probabilities.get(decision.direction, 0.0)
            text = f"{coin} {decision.direction} {share:.2f}  release {decision.release}  {decision.reason}"
            print(text, flush=True)
        time.sleep(EVERY_S)
