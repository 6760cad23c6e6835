"""A bot in forty lines: it decides every minute, and follows a rollback within a second. `make wheel` builds its client.

CRPBOT_URL=… CRPBOT_TOKEN=… CRPBOT_PUBLIC_KEY=… python example_bot.py BTC.csv ETH.csv  (`-m docs.example_bot` in a clone)
"""

import os
import sys
import threading
import time
from pathlib import Path

from crpbot_runtime import Active, Client, read_candles

EVERY_S = float(os.environ.get("BOT_EVERY_S", "60"))


def print_change(bot: Active) -> None:
    print(f"now: {bot.line}, release {bot.release}, revision {bot.revision}  {bot.problem or ''}", flush=True)


def trade(client: Client, coin: str, file: Path) -> None:
    decision = client.predict(coin, read_candles(file))  # your own candles here: 2,048 bars or more
    probability = decision.probabilities.get(decision.direction, 0.0)
    text = f"{coin} {decision.direction} {probability:.2f}  release {decision.release}  {decision.reason}"
    print(text, flush=True)


def main(paths: list[str]) -> None:
    url, token, key = (os.environ[f"CRPBOT_{name}"] for name in ("URL", "TOKEN", "PUBLIC_KEY"))
    files = {Path(path).name.partition(".")[0]: Path(path) for path in paths}
    with Client(url, token, key, os.environ.get("CRPBOT_CACHE_DIR", "var/models"), coins=files) as client:
        threading.Thread(target=client.watch, args=(print_change,), daemon=True).start()
        while True:  # neutral until there is a model; a set from the last run is used at once
            for coin in files:
                trade(client, coin, files[coin])
            time.sleep(EVERY_S)


main(sys.argv[1:])
