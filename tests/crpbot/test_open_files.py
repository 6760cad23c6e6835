"""Every bot's stream is an open file: a web process takes as many as it may have."""

import os
import resource
import subprocess
import sys

import pytest

LOOK = "import crpbot.asgi, resource; print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])"


@pytest.mark.slow
def test_a_web_process_raises_its_limit_of_open_files_to_what_it_may_have() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = 4096 if most == resource.RLIM_INFINITY else min(4096, most)
    found = subprocess.run(
        [sys.executable, "-c", LOOK],
        capture_output=True,
        text=True,
        env=os.environ,
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (256, allowed)),
    )
    assert int(found.stdout) == allowed
