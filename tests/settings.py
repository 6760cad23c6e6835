"""The service's own settings on a state folder made for this test process, and thrown away after it.

CRPBOT_TEST_DATABASE=postgresql runs on a real PostgreSQL from the pgserver wheel instead of SQLite.
"""

import atexit
import os
import shutil
import tempfile

_state = tempfile.mkdtemp(prefix="crpbot-test-")
atexit.register(shutil.rmtree, _state, ignore_errors=True)
os.environ["CRPBOT_STATE_DIR"] = _state
os.environ["CRPBOT_PROFILE"] = "embedded"

if os.environ.get("CRPBOT_TEST_DATABASE") == "postgresql":
    from tests.postgres import start

    os.environ["CRPBOT_DATABASE_URL"] = start(_state)

from crpbot.settings import *  # noqa: E402, F403
from crpbot.settings import DATABASES, STATE_DIR  # noqa: E402

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
LEASE_SECONDS = 2.0
RECONCILE_EVERY_SECONDS = 0.5
DATABASES["default"].setdefault("TEST", {})
if "sqlite" in DATABASES["default"]["ENGINE"]:
    # A file, not memory: worker processes and threads of the tests open it too.
    DATABASES["default"]["TEST"]["NAME"] = STATE_DIR / "test.sqlite3"
else:
    DATABASES["default"]["CONN_MAX_AGE"] = 0
