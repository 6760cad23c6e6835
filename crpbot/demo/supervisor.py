"""supervisord that ends with the demo: `python -m crpbot.demo.supervisor CONFIG` stops when its standard input closes.

The demo holds the other end of that pipe. However the demo ends, even by SIGKILL, the system closes the pipe, and
supervisord stops every process that it started.
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
