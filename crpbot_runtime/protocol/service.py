"""The HTTP client of the service: snapshots, polled or streamed, files, and the bot's reports.

The token is sent to the service's own origin only, and appears in no message. No answer is read beyond its announced size.
"""

import asyncio
import hashlib
import ipaddress
import json
import logging
import os
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from importlib import import_module
from typing import Any, NamedTuple

import httpx

from crpbot_runtime.errors import (
    EnvelopeRefused,
    FileRefused,
    KeysRefused,
    Misconfigured,
    NotAuthorised,
    Refused,
    ReportRejected,
    RequestRejected,
    ServiceUnavailable,
    StreamRefused,
)
from crpbot_runtime.protocol.connections import Connections
from crpbot_runtime.protocol.envelope import MAX_ENVELOPE_BYTES
from crpbot_runtime.protocol.events import EventParser
from crpbot_runtime.protocol.proxies import find_proxy, is_host_name
from crpbot_runtime.protocol.public_keys import MAX_KEY_SETS_BYTES
from crpbot_runtime.protocol.snapshot import File, make_printable
from crpbot_runtime.version import VERSION

logger = logging.getLogger(__name__)

for _name in (
    "anyio._backends._asyncio",
    "anyio.abc",
    "anyio.streams.tls",
    "anyio.to_thread",
    "encodings.idna",
):
    # The HTTP library imports them at the first stream. A process that is forked in the middle of an import waits for ever.
    with suppress(ImportError):
        import_module(_name)

ACTIVE_PATH = "/api/v1/active/signed/"
KEYS_PATH = "/api/v1/active/keys/"
STREAM_PATH = "/api/v1/active/stream/"
HEARTBEAT_PATH = "/api/v1/bots/heartbeat/"
WINDOWS_PATH = "/api/v1/bots/windows/"
MIN_BYTES_PER_S = 16 * 1024
"""A slower download counts as none, after one timeout of grace."""
TIMEOUTS_IN_ALL = 3
"""What any other answer may take, from the connection to its last byte, in timeouts: each wait is bounded by one."""

MAX_SILENCE_S = 40.0
"""The service sends something every 15 s; a quieter stream is dead."""
MAX_UNCONFIRMED_S = 90.0
"""The service sends a newly signed snapshot every minute; a stream without one is given up for polling."""

_MAX_PROBLEM_BYTES = 16 * 1024
_MAX_ETAG_LETTERS = 200
_TLS_SETTINGS = ("SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE")
_REJECTED = frozenset({400, 409, 413, 422})


class Answer(NamedTuple):
    """A signed snapshot as received: the envelope's bytes, and the ETag to send with the next request."""

    body: bytes
    etag: str | None


Write = Callable[[bytes], None]
"""Takes the next bytes of a download."""


class Service:
    """One service at one address. `url` may have a path below which the API lies; `timeout_s` bounds each wait.

    `needs` says which scope the token needs, for the message of a refusal.
    """

    def __init__(
        self, url: str, token: str, *, timeout_s: float, needs: str = "a bot needs the scope 'bot'"
    ) -> None:
        self._needs = needs
        self.url = _parse_url(url)
        self._origin = _get_origin(self.url)
        self._token = _validate_token(token)
        self._timeout_s = timeout_s
        # No redirects: the service has none, and another address would see the token or hand out old answers.
        # Unpacked bodies only: a compressed one can be a thousand times what was announced.
        self._headers = {"Accept-Encoding": "identity", "User-Agent": f"crpbot-runtime/{VERSION}"}
        self._certificates = _load_certificates()
        self._is_closed = False
        self._inherited: list[object] = []
        self._proxies: dict[tuple[str, str, int], httpx.Proxy | None] = {}
        self._open()
        _warn_if_exposed(self.url)

    def _open(self) -> None:
        self._connections = Connections()
        self._clients: dict[str, httpx.Client] = {}
        self._get_client(self.url)  # what is wrong with it is found here

    def __repr__(self) -> str:
        return f"Service({str(self.url)!r})"

    def close(self) -> None:
        self._is_closed = True
        for client in list(self._clients.values()):
            client.close()

    def renew_after_fork(self) -> None:
        """In the child: open connections are the parent's, and are neither used nor closed here."""
        self._inherited.append((self._connections, self._clients))
        self._open()

    def fetch_snapshot(self, etag: str | None) -> Answer | None:
        """Fetch the signed snapshot; None if it is still the one with this `etag`. Nothing is verified here.

        Raises ServiceUnavailable, NotAuthorised, or EnvelopeRefused for a body without end.
        """
        # no-cache: between a bot and its pointer no proxy may answer from memory.
        headers = {"Accept": "application/json", "Cache-Control": "no-cache"}
        headers |= {"If-None-Match": etag} if etag else {}
        with self._request("GET", self._build_url(ACTIVE_PATH), headers) as response:
            if response.status_code == httpx.codes.NOT_MODIFIED and etag:
                return None
            self._require_ok(response, self._read_problem(response))
            body = b"".join(self._read_chunks(response, MAX_ENVELOPE_BYTES, EnvelopeRefused))
            return Answer(body, _validate_etag(response.headers.get("ETag")))

    def fetch_key_sets(self) -> bytes:
        """Fetch the service's signed sets of keys. Nothing is verified here.

        Raises ServiceUnavailable, NotAuthorised, or KeysRefused for a body without end.
        """
        headers = {"Accept": "application/json", "Cache-Control": "no-cache"}
        with self._request("GET", self._build_url(KEYS_PATH), headers) as response:
            self._require_ok(response, self._read_problem(response))
            return b"".join(self._read_chunks(response, MAX_KEY_SETS_BYTES, KeysRefused))

    async def stream(self, on_answer: Callable[[Answer], None]) -> None:
        """Call `on_answer` with the current snapshot, then with each new one. Nothing is verified here.

        Never returns; raises ServiceUnavailable, NotAuthorised, StreamRefused, and what `on_answer` raises.
        """
        url, loop = self._build_url(STREAM_PATH), asyncio.get_running_loop()
        waits = httpx.Timeout(self._timeout_s, read=MAX_SILENCE_S)
        headers = self._headers | {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        try:
            async with (
                asyncio.timeout(self._timeout_s) as patience,
                httpx.AsyncClient(
                    timeout=waits, verify=self._certificates, proxy=self._find_proxy(url), trust_env=False
                ) as http,
                http.stream("GET", url, headers=headers | self._build_auth_headers(url)) as response,
            ):
                await self._require_stream(response)
                events = EventParser()
                async for chunk in response.aiter_raw():
                    for event in events.feed(chunk):
                        if event.name == "snapshot":
                            on_answer(Answer(event.data, None))
                            patience.reschedule(loop.time() + MAX_UNCONFIRMED_S)
        except httpx.HTTPError as error:
            raise ServiceUnavailable(self._describe(url, f"broke off: {_describe_error(error)}")) from error
        except TimeoutError as error:
            raise ServiceUnavailable(self._describe(url, "brings no snapshot")) from error
        raise ServiceUnavailable(self._describe(url, "ended"))

    async def _require_stream(self, response: httpx.Response) -> None:
        body = b""
        if response.status_code != httpx.codes.OK and _is_problem(response):
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > _MAX_PROBLEM_BYTES:
                    break
        self._require_ok(response, body)
        kind = response.headers.get("Content-Type", "").partition(";")[0]
        if kind != "text/event-stream" or response.headers.get("Content-Encoding", "identity") != "identity":
            raise StreamRefused(self._describe(response.url, f"answers {kind[:60]!r}, not a stream"))

    def post(self, path: str, document: Mapping[str, Any]) -> dict[str, Any]:
        """Post a report; returns the service's answer.

        Raises ServiceUnavailable, NotAuthorised, and ReportRejected if sending the same again would be useless.
        """
        url = self._build_url(path)
        try:
            with self._request("POST", url, json=document) as response:
                if response.status_code in _REJECTED:
                    detail = _extract_detail(self._read_problem(response))
                    raise ReportRejected(self._describe(url, f"answers {response.status_code}{detail}"))
                if response.status_code != httpx.codes.CREATED:
                    self._require_ok(response, self._read_problem(response))
                answer = json.loads(
                    b"".join(self._read_chunks(response, _MAX_PROBLEM_BYTES, Refused)) or b"{}"
                )
        except (ValueError, RecursionError, Refused) as error:
            raise ServiceUnavailable(self._describe(url, "answers what cannot be read")) from error
        return answer if isinstance(answer, dict) else {}

    def ask(self, method: str, path: str, *, at_most: int, **sent: Any) -> bytes:
        """The body of an answer of the API, of at most so many bytes. `sent` is what httpx sends: json, data, files, params.

        Raises ServiceUnavailable, NotAuthorised, Refused for a larger body, and RequestRejected with the service's reason.
        """
        url = self._build_url(path)
        limit_s = TIMEOUTS_IN_ALL * self._timeout_s + at_most / MIN_BYTES_PER_S
        with self._request(method, url, limit_s=limit_s, **sent) as response:
            if response.status_code in _REJECTED | {httpx.codes.NOT_FOUND}:
                detail = _extract_detail(self._read_problem(response))
                raise RequestRejected(self._describe(url, f"answers {response.status_code}{detail}"))
            if response.status_code != httpx.codes.CREATED:
                self._require_ok(response, self._read_problem(response))
            return b"".join(self._read_chunks(response, at_most, Refused))

    def download(self, file: File, write: Write) -> None:
        """Pass one announced file to `write`.

        Raises ServiceUnavailable, NotAuthorised, FileRefused (size or digest differ), OSError (the disk).
        """
        digest, size = hashlib.sha256(), 0
        try:
            url = _parse_url(str(self.url.join(file.url)))
        except (Misconfigured, httpx.InvalidURL) as error:
            raise FileRefused(f"its announced address cannot be used: {error}") from error
        limit_s = self._timeout_s + file.size / MIN_BYTES_PER_S
        with self._request("GET", url, limit_s=limit_s) as response:
            self._require_ok(response, self._read_problem(response))
            for chunk in self._read_chunks(response, file.size, FileRefused):
                digest.update(chunk)
                size += len(chunk)
                write(chunk)
        if size != file.size:
            raise FileRefused(f"{size:,} bytes came where {file.size:,} were announced")
        if digest.hexdigest() != file.sha256:
            raise FileRefused(f"its sha256 is {digest.hexdigest()[:12]}…, announced was {file.sha256[:12]}…")

    @contextmanager
    def _request(
        self,
        method: str,
        url: httpx.URL,
        headers: Mapping[str, str] | None = None,
        *,
        limit_s: float | None = None,
        **body: Any,
    ) -> Iterator[httpx.Response]:
        """One request with this body, as httpx takes it, over after `limit_s` seconds whatever comes.

        Network errors are raised as ServiceUnavailable. So is the use of a closed client. Other hosts never get the token.
        """
        sent = {**(headers or {}), **self._build_auth_headers(url)}
        with self._connections.limit(limit_s or TIMEOUTS_IN_ALL * self._timeout_s) as deadline:
            try:
                with self._get_client(url).stream(
                    method, url, headers=sent, extensions={"trace": self._connections.trace}, **body
                ) as response:
                    yield response
                if deadline.is_over:  # or a cut answer without a length would look complete
                    raise httpx.ReadTimeout("")
            except httpx.HTTPError as error:
                cause = "it sends too slowly" if deadline.is_over else _describe_error(error)
                raise ServiceUnavailable(self._describe(url, f"cannot be reached: {cause}")) from error
            except RuntimeError as error:
                if not self._is_closed:
                    raise
                raise ServiceUnavailable("this client is closed") from error

    def _get_client(self, url: httpx.URL) -> httpx.Client:
        """The HTTP client for the proxy that leads to this address. Raises Misconfigured."""
        proxy = self._find_proxy(url)
        name = str(proxy.url) if proxy else ""
        if name not in self._clients:
            client = httpx.Client(
                timeout=self._timeout_s,
                follow_redirects=False,
                headers=self._headers,
                verify=self._certificates,
                proxy=proxy,
                trust_env=False,  # the proxy is found here, and its other settings are not meant for bots
            )
            self._clients.setdefault(name, client)
        return self._clients[name]

    def _find_proxy(self, url: httpx.URL) -> httpx.Proxy | None:
        # Once for each host: macOS must not be asked for its settings after a fork.
        origin = _get_origin(url)
        if origin not in self._proxies:
            self._proxies[origin] = find_proxy(url)
        return self._proxies[origin]

    def _build_url(self, path: str) -> httpx.URL:
        return self.url.copy_with(path=self.url.path.rstrip("/") + path)

    def _build_auth_headers(self, url: httpx.URL) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._token}"} if _get_origin(url) == self._origin else {}

    def _read_chunks(self, response: httpx.Response, limit: int, refusal: type[Refused]) -> Iterator[bytes]:
        """The body as sent. Raises `refusal` beyond `limit` bytes."""
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise refusal(self._describe(response.url, "answers compressed, which was not requested"))
        size = 0
        for chunk in response.iter_raw():
            size += len(chunk)
            if size > limit:
                raise refusal(self._describe(response.url, f"sends more than the {limit:,} bytes allowed"))
            yield chunk

    def _require_ok(self, response: httpx.Response, problem: bytes) -> None:
        code = response.status_code
        if code == httpx.codes.OK:
            return
        message = self._describe(response.url, f"answers {code}{_extract_detail(problem)}")
        if code == httpx.codes.UNAUTHORIZED and not self._build_auth_headers(response.url):
            cause = f"the token was not shown, since that host is not {_format_url(self.url)}"
        elif code == httpx.codes.UNAUTHORIZED:
            cause = "the token was not accepted: it may be mistyped, revoked or expired"
        elif code == httpx.codes.FORBIDDEN:
            cause = f"the token's scope does not allow this: {self._needs}"
        else:
            if response.is_redirect:
                message += f" and names {_format_location(response)}, which is not followed"
            is_lost = code == httpx.codes.NOT_FOUND or response.is_redirect
            raise ServiceUnavailable(f"{message}; is the address right?" if is_lost else message)
        raise NotAuthorised(f"{message}; {cause}")

    def _read_problem(self, response: httpx.Response) -> bytes:
        """The body of a problem+json (RFC 9457); empty for anything else."""
        if response.status_code == httpx.codes.OK or not _is_problem(response):
            return b""
        try:
            return b"".join(self._read_chunks(response, _MAX_PROBLEM_BYTES, Refused))
        except (Refused, ServiceUnavailable, httpx.HTTPError):
            return b""  # the status code is message enough

    def _describe(self, url: httpx.URL, action: str) -> str:
        """What an address did, on one line, and without the token even where the other side echoes it."""
        return make_printable(f"{_format_url(url)} {action}").replace(self._token, "[token]")


def _validate_etag(etag: str | None) -> str | None:
    """The ETag, if it can be sent back in a header. With an invalid one every later request would fail."""
    return etag if etag and len(etag) <= _MAX_ETAG_LETTERS and all("!" <= x <= "~" for x in etag) else None


def _is_problem(response: httpx.Response) -> bool:
    return bool(response.headers.get("Content-Type", "").startswith("application/problem+json"))


def _extract_detail(problem: bytes) -> str:
    """The detail of a problem document, ready to follow a status code; empty if there is none."""
    try:
        document = json.loads(problem)
    except (ValueError, RecursionError):
        return ""
    detail = document.get("detail") or document.get("title") if isinstance(document, dict) else None
    return f": {detail[:300]}" if isinstance(detail, str) else ""


@cache
def _load_certificates() -> ssl.SSLContext:
    """Raises Misconfigured if the environment names what cannot be read."""
    # Reading them takes 26 ms; once a process is enough.
    try:
        return httpx.create_ssl_context()
    except OSError as error:
        named = [f"{name}={os.environ[name]}" for name in _TLS_SETTINGS if os.environ.get(name)]
        raise Misconfigured(
            f"the certificates cannot be read ({error.strerror or error}); look at {', '.join(named) or 'certifi'}"
        ) from error


def _parse_url(url: str) -> httpx.URL:
    try:
        parsed = httpx.URL(url.strip())
    except httpx.InvalidURL as error:
        raise Misconfigured(f"the service's address is not a URL: {error}") from error
    if parsed.scheme not in ("http", "https") or not is_host_name(parsed):
        raise Misconfigured("the service's address must begin with http:// or https:// and name a host")
    if parsed.userinfo:
        raise Misconfigured(
            "the service's address must not hold a user or password; give the token by itself"
        )
    return parsed


def _validate_token(token: str) -> str:
    # Here, and not in the HTTP library: its message for an illegal header would quote the token.
    token = token.strip()
    if not token:
        raise Misconfigured("there is no token: a bot needs one of scope 'bot' (set CRPBOT_TOKEN)")
    if not all("!" <= letter <= "~" for letter in token):
        raise Misconfigured("the token holds a space or a letter that no token has; was it copied whole?")
    return token


def _get_origin(url: httpx.URL) -> tuple[str, str, int]:
    return url.scheme, url.host, url.port or {"http": 80, "https": 443}[url.scheme]


def _format_url(url: httpx.URL) -> str:
    """The address without its query, which may hold a signature."""
    return str(url.copy_with(query=None, fragment=None))


def _format_location(response: httpx.Response) -> str:
    try:
        return make_printable(_format_url(response.url.join(response.headers.get("Location", "")))[:200])
    except httpx.InvalidURL:
        return "another address"


def _describe_error(error: httpx.HTTPError) -> str:
    return str(error) or type(error).__name__


def _warn_if_exposed(url: httpx.URL) -> None:
    if url.scheme == "https" or url.host == "localhost":
        return
    try:
        is_inside = ipaddress.ip_address(url.host).is_private
    except ValueError:
        is_inside = "." not in url.host  # a name of the local network, as between containers
    if not is_inside:
        logger.warning("%s is not https: the token travels readable to everyone on the way", _format_url(url))
