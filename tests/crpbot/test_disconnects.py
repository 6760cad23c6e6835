"""Work for a request ends when its client disconnects, and with the web process: nobody would take the result."""

import http.client
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import numpy as np
import psutil
import pytest
from django.conf import settings
from onnx import helper

from tests import factories
from tests.deploy.serving import Web, web
from tests.model_files import LINEAR, linear_tensors, onnx_file
from tests.processes import wait_until
from training.services import coins

pytestmark = [pytest.mark.slow, pytest.mark.processes]


@pytest.fixture
def service(committed: None, tmp_path: Path) -> Iterator[Web]:
    coins.ensure_coins()
    with web(tmp_path / "web.log", settings.REDIS_URL) as process:
        yield process


def endless_model() -> bytes:
    """Its import takes longer than the 120 s that it may take."""
    wide = np.random.default_rng(0).normal(size=(72, 20_000)).astype(np.float32)
    nodes, held = [LINEAR, helper.make_node("Transpose", ["wide"], ["tall"], perm=[1, 0])], "x"
    for step in range(200):
        nodes.append(helper.make_node("MatMul", [held if step else "tall", "wide"], [f"s{step}"]))
        nodes.append(helper.make_node("MatMul", [f"s{step}", "tall"], [held := f"h{step}"]))
    nodes += [
        helper.make_node("ReduceMean", [held], ["mean"], keepdims=0),
        helper.make_node("Add", ["y", "mean"], ["z"]),
    ]
    return onnx_file(nodes, {**linear_tensors(), "wide": wide}, target="z")


def start_upload(service: Web) -> http.client.HTTPConnection:
    """An upload whose answer nobody has read yet."""
    fields = {"coin": "BTC", "line": "v6_enhanced", "schema": "raw72", "is_simulated": "true"}
    boundary = uuid4().hex
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="a.onnx"\r\n\r\n'.encode()
    body = b"".join([*parts, head, endless_model(), f"\r\n--{boundary}--\r\n".encode()])
    token = factories.token(factories.person("olivia", "operator"), "operator")
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=60)
    headers = {
        "Authorization": f"Bearer {token}",
        "Content-Type": f"multipart/form-data; boundary={boundary}",
    }
    connection.request("POST", "/api/v1/bundles/", body, headers)
    return connection


def readers(service: Web) -> list[psutil.Process]:
    """The processes that read the upload, once they are at work."""
    found = []
    for child in psutil.Process(service.process.popen.pid).children():
        if "mlcore.importers.convert" in child.cmdline() and child.cpu_times().user > 0.3:
            found.append(child)
    return found


def test_the_reader_of_an_upload_ends_when_its_client_disconnects(service: Web) -> None:
    with closing(start_upload(service)):
        (reader,) = wait_until(lambda: readers(service), what="the file is read")
    wait_until(lambda: not reader.is_running(), what="the reader ended", seconds=30)
    assert service.process.popen.poll() is None


@pytest.mark.long
def test_the_reader_of_an_upload_ends_with_the_web_process(service: Web) -> None:
    with closing(start_upload(service)):
        (reader,) = wait_until(lambda: readers(service), what="the file is read")
        service.process.kill()
        wait_until(
            lambda: not reader.is_running() or reader.status() == psutil.STATUS_ZOMBIE,
            what="the reader ended",
            seconds=30,
        )
