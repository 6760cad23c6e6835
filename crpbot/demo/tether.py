"""supervisord on a tether: `python -m crpbot.demo.tether CONFIG` ends when its standard input closes.

The demo holds the other end. However the demo ends, by SIGKILL too, the system closes that end, and supervisord
stops everything it started.
"""

import os
import signal
import sys
import threading

from supervisor import supervisord


def end_with_parent() -> None:
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=end_with_parent, daemon=True).start()
    supervisord.main(["--configuration", sys.argv[1]])
