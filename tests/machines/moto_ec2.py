"""moto's EC2 behind a door: it repeats a start by its ClientToken as EC2 does, refuses, delays, and loses answers."""

import io
import threading
import time
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs

import boto3
from moto.backends import get_backend
from moto.ec2.models.instances import InstanceState, StateReason
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

REGION = "us-east-1"
TEMPLATE = "crpbot-worker"
ACCOUNT = "123456789012"
NO_CAPACITY = (
    '<?xml version="1.0" encoding="UTF-8"?><Response><Errors><Error><Code>InsufficientInstanceCapacity</Code>'
    "<Message>There is no Spot capacity available.</Message></Error></Errors><RequestID>1</RequestID></Response>"
)

Answer = tuple[str, list[tuple[str, str]], bytes]


class MotoEc2:
    """A server on a free port of this machine. `asked` has the fields of each request."""

    def __init__(self) -> None:
        self._inner: Any = DomainDispatcherApplication(create_backend_app)
        self._server = make_server(
            "127.0.0.1", 0, self._answer, threaded=True, request_handler=MotoRequestHandler
        )
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.asked: list[dict[str, str]] = []
        self.refuses_spot = False
        self.loses_answers_to: set[str] = set()
        self.garbles_answers_to: set[str] = set()
        self.delay_seconds = 0.0
        self._by_token: dict[str, Answer] = {}

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def prepare(self) -> None:
        """Nothing from an earlier test, and the launch template."""
        backend = get_backend("ec2")[ACCOUNT][REGION]
        backend.reset()
        self.asked.clear()
        self._by_token.clear()
        self.refuses_spot, self.delay_seconds = False, 0.0
        self.loses_answers_to, self.garbles_answers_to = set(), set()
        image = next(iter(backend.amis))  # asked for over HTTP, all thousand of them would come
        self.client().create_launch_template(
            LaunchTemplateName=TEMPLATE, LaunchTemplateData={"ImageId": image, "InstanceType": "g5.xlarge"}
        )
        self.asked.clear()

    def client(self) -> Any:
        return boto3.client(
            "ec2",
            region_name=REGION,
            endpoint_url=self.endpoint,
            aws_access_key_id="access",
            aws_secret_access_key="secret",
        )

    def list_asked(self, action: str) -> list[dict[str, str]]:
        return [fields for fields in self.asked if fields["Action"] == action]

    def list_instances(self) -> list[Any]:
        """moto's own instances, which a test may change."""
        reservations = get_backend("ec2")[ACCOUNT][REGION].all_reservations()
        return [instance for reservation in reservations for instance in reservation.instances]

    def _answer(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        fields = {name: values[0] for name, values in parse_qs(body.decode()).items()}
        self.asked.append(fields)
        if self.delay_seconds:
            time.sleep(self.delay_seconds)
        status, headers, content = self._decide(fields, environ)
        if fields.get("Action") in self.loses_answers_to:
            self.loses_answers_to.discard(fields["Action"])
            status, headers, content = "503 Service Unavailable", [], b""
        if fields.get("Action") in self.garbles_answers_to:
            self.garbles_answers_to.discard(fields["Action"])
            status, headers, content = "502 Bad Gateway", [], b"<!doctype html><h1>Bad Gateway</h1>"
        start_response(status, headers)
        return [content]

    def _decide(self, fields: dict[str, str], environ: dict[str, Any]) -> Answer:
        token = fields.get("ClientToken", "")
        if fields.get("Action") != "RunInstances":
            return self._ask_moto(environ)
        if token in self._by_token:
            return self._by_token[token]
        if self.refuses_spot and fields.get("InstanceMarketOptions.MarketType") == "spot":
            return "400 Bad Request", [("Content-Type", "text/xml")], NO_CAPACITY.encode()
        answer = self._by_token[token] = self._ask_moto(environ)
        return answer

    def _ask_moto(self, environ: dict[str, Any]) -> Answer:
        started: list[Any] = []

        def start_response(status: str, headers: list[tuple[str, str]], *rest: Any) -> None:
            started.extend((status, headers))

        content = b"".join(self._inner(environ, start_response))
        return started[0], started[1], content


def delay(instance: Any) -> None:
    """It is on its way, as EC2 says until it runs."""
    instance._state = InstanceState("pending", 0)


def boot(instance: Any) -> None:
    instance._state = InstanceState("running", 16)


def reclaim(instance: Any) -> None:
    """Terminated by EC2, which names no time here."""
    instance._state = InstanceState("terminated", 48)
    instance._reason = "Server.SpotInstanceTermination"
    code = "Server.SpotInstanceTermination"
    instance.state_reason = StateReason(f"{code}: Spot instance termination", code)


def age(instance: Any, seconds: float) -> None:
    """It was started so much earlier."""
    instance.launch_time -= timedelta(seconds=seconds)
