"""A real PostgreSQL for the tests, from the pgserver wheel."""

import atexit
import os
from pathlib import Path


def start(folder: str) -> str:
    """Start a server with its data in `folder`; answers the URL to reach it by. It stops with this process."""
    Path(folder).chmod(0o755)  # PostgreSQL refuses to run as root, and then runs as a user of its own
    runtime = Path(folder) / "run"
    runtime.mkdir(mode=0o700, exist_ok=True)
    os.environ.setdefault("XDG_RUNTIME_DIR", str(runtime))
    from pgserver.postgres_server import get_server

    server = get_server(f"{folder}/postgresql", cleanup_mode="stop")
    atexit.register(server.cleanup)
    # What a power cut would take is of no value to anybody; the settings are read again without a restart.
    for setting in ("fsync", "synchronous_commit", "full_page_writes"):
        server.psql(f"ALTER SYSTEM SET {setting} = off;")
    server.psql("SELECT pg_reload_conf();")
    return str(server.get_uri())
