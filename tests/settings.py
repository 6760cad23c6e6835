"""The service's own settings on a state folder made for this test process, and thrown away after it.

CRPBOT_TEST_DATABASE=postgresql runs on a real PostgreSQL from the pgserver wheel instead of SQLite. A process that a test
starts gets CRPBOT_TEST_STATE_DIR and CRPBOT_TEST_DATABASE_NAME, and works on that test's state (tests.processes).
"""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

_inherited = os.environ.get("CRPBOT_TEST_STATE_DIR")
_state = _inherited or tempfile.mkdtemp(prefix="crpbot-test-")
os.environ["CRPBOT_STATE_DIR"] = _state
os.environ["CRPBOT_PROFILE"] = "embedded"
os.environ.pop("CRPBOT_SIGNING_KEYS_DIR", None)  # no test signs with anybody's real key
if not _inherited:
    atexit.register(shutil.rmtree, _state, ignore_errors=True)
    # One server for all workers of pytest-xdist, each of which has a database of its own: they inherit its address.
    if os.environ.get("CRPBOT_TEST_DATABASE") == "postgresql" and "PYTEST_XDIST_WORKER" not in os.environ:
        from tests.postgres import start

        os.environ["CRPBOT_DATABASE_URL"] = start(_state)

from crpbot.settings import *  # noqa: E402, F403
from crpbot.settings import CACHES, DATABASES, STATE_DIR  # noqa: E402

if "CRPBOT_TEST_CLOCK" in os.environ:
    from tests import shifted_clock

    shifted_clock.install(Path(os.environ["CRPBOT_TEST_CLOCK"]))

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
# What is counted starts over with each test (tests.conftest); processes that Redis fails before their eyes count with it.
if "CRPBOT_TEST_SHARED_CACHE" not in os.environ:
    CACHES = {**CACHES, "shared": CACHES["default"]}
LEASE_SECONDS = 2.0
RECONCILE_EVERY_SECONDS = 0.5
BOARD_SHARED_SECONDS = 0.0  # a test sees what it has just done
RECONCILE_LATE_SECONDS = 24 * 60 * 60.0  # most tests run no reconcile
RESEND_SECONDS = 3.0
DATABASES["default"].setdefault("TEST", {})
if "sqlite" in DATABASES["default"]["ENGINE"]:
    # A file, not memory: worker processes and threads of the tests open it too.
    DATABASES["default"]["TEST"]["NAME"] = STATE_DIR / "test.sqlite3"
    # A killed process loses nothing by it, only a power cut would; and each test empties the tables.
    options = DATABASES["default"]["OPTIONS"]
    options["init_command"] = options["init_command"].replace("synchronous=FULL", "synchronous=OFF")
else:
    DATABASES["default"]["CONN_MAX_AGE"] = 0
if _inherited:
    DATABASES["default"]["NAME"] = os.environ["CRPBOT_TEST_DATABASE_NAME"]
else:
    # Each client of a test makes the middleware again, for which WhiteNoise would look at two hundred files each time.
    WHITENOISE_AUTOREFRESH = True
