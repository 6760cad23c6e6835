"""moto's S3 behind SeaweedFS' options: its keys from the same file, its objects as lasting as the volume in /data.

moto keeps objects in memory. Each request that changes something is therefore appended to a log, and the log is repeated at
the start. A killed container thus loses nothing that it acknowledged.
"""

import argparse
import json
from collections.abc import Callable, Iterable
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple
from werkzeug.test import Client

HEADERS = ("HTTP_", "CONTENT_")
Environment = dict[str, Any]
Start = Callable[..., Any]


class DurableStore:
    """A WSGI application: moto's, with a log."""

    def __init__(self, app: Any, log: Path, access_keys: set[str]) -> None:
        self._app, self._log, self._keys, self._lock = app, log, access_keys, Lock()

    def __call__(self, environ: Environment, start: Start) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/healthz":
            return _answer(start, "200 OK")
        if not any(f"Credential={key}/" in environ.get("HTTP_AUTHORIZATION", "") for key in self._keys):
            return _answer(start, "403 Forbidden")
        if environ["REQUEST_METHOD"] in ("GET", "HEAD"):
            return self._ask(environ, start)
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        with self._lock:  # the log has the order in which they were carried out
            answer = list(self._ask({**environ, "wsgi.input": BytesIO(body)}, start))
            kept = {name: value for name, value in environ.items() if name.startswith(HEADERS)}
            line = (
                environ["REQUEST_METHOD"],
                environ["PATH_INFO"],
                environ["QUERY_STRING"],
                kept,
                body.hex(),
            )
            with self._log.open("a") as out:
                out.write(json.dumps(line) + "\n")
        return answer

    def repeat_log(self) -> None:
        if not self._log.exists():
            return
        client = Client(self._app)
        for line in self._log.read_text().splitlines():
            method, path, query, headers, body = json.loads(line)
            environ = {**headers, "wsgi.url_scheme": "http"}
            client.open(
                path,
                method=method,
                query_string=query,
                data=bytes.fromhex(body),
                environ_overrides=environ,
                buffered=True,
            ).close()

    def _ask(self, environ: Environment, start: Start) -> Iterable[bytes]:
        answer: Iterable[bytes] = self._app(environ, start)
        return answer


def _answer(start: Start, status: str) -> list[bytes]:
    start(status, [("Content-Length", "0")])
    return [b""]


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("command", choices=["server"])
    parser.add_argument("-dir", type=Path, required=True)
    parser.add_argument("-s3", action="store_true", required=True)
    parser.add_argument("-s3.config", dest="keys", type=Path, required=True)
    parser.add_argument("-s3.port", dest="port", type=int, default=8333)
    parser.add_argument("-master.volumeSizeLimitMB", dest="megabytes")
    options = parser.parse_args()
    identities = json.loads(options.keys.read_text())["identities"]
    keys = {pair["accessKey"] for identity in identities for pair in identity["credentials"]}
    store = DurableStore(DomainDispatcherApplication(create_backend_app), options.dir / "requests.log", keys)
    store.repeat_log()
    run_simple("0.0.0.0", options.port, store, threaded=True)


if __name__ == "__main__":
    main()
