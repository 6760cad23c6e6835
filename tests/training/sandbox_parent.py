"""A process of the service that runs a script in the sandbox, as a test started it.

    python -m tests.training.sandbox_parent FOLDER SCRIPT USER SECONDS

FOLDER/SCRIPT is run by the standard library's profiler, because modules from the folder cannot be imported in the sandbox.
With the USER "same", this process gives up root's rights first: the sandbox then is the same user as its parent, as in the
containers. It holds a secret in its environment and one in its memory.
"""

import ctypes
import json
import sys
from pathlib import Path

from training.jobs import confinement

SECRET = b"hush, in the parent's memory"


def main() -> None:
    folder, script, user, seconds = Path(sys.argv[1]), sys.argv[2], sys.argv[3], float(sys.argv[4])
    if user == "same":
        confinement._drop_capabilities(may_read=False)
    import django

    django.setup()
    from training.jobs import sandbox

    if (targets := folder / "targets.json").exists():
        held = ctypes.create_string_buffer(SECRET)
        known = json.loads(targets.read_text())
        targets.write_text(json.dumps({**known, "address": ctypes.addressof(held)}))
    sandbox.run_module("cProfile", ["-o", "profile", script], folder=folder, seconds=seconds)


if __name__ == "__main__":
    main()
