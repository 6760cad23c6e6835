import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import factories, scenarios
from tests.loopback import answers, free_port
from tests.pages.example_data import PEOPLE
from tests.processes import start, wait_until

SERVE = (
    "import sys, uvicorn;"
    "uvicorn.run('crpbot.asgi:application', host='127.0.0.1', port=int(sys.argv[1]), lifespan='off')"
)


@pytest.fixture
def service_url(committed: None, tmp_path: Path) -> Iterator[str]:
    """The address of a web process: v6_enhanced is inherited, v5 is the fallback, the example people can sign in."""
    for name, roles in PEOPLE.items():
        factories.person(name, *roles)
    scenarios.service_in_use()
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    web = start(sys.executable, "-c", SERVE, str(port), log=tmp_path / "web.log")
    wait_until(lambda: answers(f"{address}/healthz"), what=f"the web process: {web.log}")
    yield address
    web.stop()
