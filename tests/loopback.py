"""Servers of tests and benchmarks on the loopback interface: a port for one, and whether it answers."""

import socket
import time
from http.client import HTTPException
from urllib.request import urlopen


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def answers(url: str) -> bool:
    """Whether it is answered there, and well."""
    try:
        with urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except (OSError, HTTPException):
        return False


def wait_until_it_answers(url: str, *, seconds: float = 60) -> None:
    """Raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while not answers(url):
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:g} s in vain for {url}")
        time.sleep(0.1)
