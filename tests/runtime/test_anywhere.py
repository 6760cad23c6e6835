"""The client runs where bots run: after a fork, behind a proxy, without what only Unix has, with a read-only folder."""

import ctypes
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import polars as pl
import pytest

from crpbot_runtime import Misconfigured
from crpbot_runtime.__main__ import main
from crpbot_runtime.protocol import service as http_client
from crpbot_runtime.protocol.proxies import find_proxy
from tests.runtime.bots import PYTHON, WARNINGS, check_fork, check_other_system, read_line, running, tell
from tests.runtime.conftest import MakeBot
from tests.runtime.stub_service import TOKEN, Release, StubService

pytestmark = pytest.mark.slow

CAP_DAC_OVERRIDE, PR_CAPBSET_DROP = 1, 24


@pytest.fixture
def candle_file(candles: pl.DataFrame, tmp_path: Path) -> Path:
    candles.write_parquet(tmp_path / "BTC.parquet")
    return tmp_path / "BTC.parquet"


class TestFork:
    def test_a_client_made_before_a_fork_works_in_the_child_and_in_the_parent(
        self,
        service: StubService,
        cache_dir: Path,
        old: Release,
        new: Release,
        candle_file: Path,
    ) -> None:
        check_fork([*PYTHON, *WARNINGS], service, cache_dir, old, new, candle_file)

    CONVERT = """
import os, sys
import polars as pl
from crpbot_runtime import MlcoreError, read_candles
from crpbot_runtime.frames import to_candles

rows = [[1_600_000_020 + 60 * bar, 1.0, 1.0, 1.0, 1.0, 1.0] for bar in range(9)]
with open(sys.argv[1], "w") as file:
    file.writelines(",".join(map(str, row)) + "\\n" for row in rows)
if sys.argv[2] == "used":
    pl.DataFrame({"a": [1]}).select(pl.col("a"), b=pl.col("a") * 2)
if (child := os.fork()) == 0:
    try:
        print(to_candles(rows, "rows").height, read_candles(sys.argv[1]).height, flush=True)
    except MlcoreError as error:
        print(error, flush=True)
    os._exit(0)
os.waitpid(child, 0)
"""

    @pytest.mark.parametrize(
        ("polars", "answer"),
        [("not used", "9 9"), ("used", "rows: polars was used in this process before it was forked")],
    )
    def test_a_child_converts_candles_or_says_why_it_cannot(
        self, tmp_path: Path, polars: str, answer: str
    ) -> None:
        """The threads of polars do not come along, and polars waits for them for ever."""
        with running(PYTHON, self.CONVERT, tmp_path / "candles.csv", polars) as bot:
            assert bot.communicate(timeout=30)[0].startswith(answer)


PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture
def setenv(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets variables in an environment without any about proxies."""
    for name in os.environ:
        if name.lower() in PROXIES:
            monkeypatch.delenv(name)

    def set_all(**variables: str) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return set_all


class TestProxies:
    @pytest.mark.parametrize(
        ("variables", "address", "proxy"),
        [
            ({}, "https://gate.example", None),
            ({"HTTPS_PROXY": "http://proxy:3128"}, "https://gate.example", "http://proxy:3128"),
            ({"https_proxy": "proxy:3128"}, "https://gate.example", "http://proxy:3128"),
            ({"HTTPS_PROXY": "http://proxy:3128"}, "http://gate.example", None),
            ({"ALL_PROXY": "http://proxy:3128"}, "http://gate.example", "http://proxy:3128"),
            ({"ALL_PROXY": "socks://proxy:7890"}, "http://127.0.0.1:8000", None),
            ({"ALL_PROXY": "socks://proxy:7890"}, "http://[::1]:8000", None),
            ({"ALL_PROXY": "socks://proxy:7890"}, "http://localhost:8000", None),
            ({"ALL_PROXY": "http://p", "NO_PROXY": "*"}, "http://gate.example", None),
            ({"ALL_PROXY": "http://p", "NO_PROXY": "GATE.example"}, "http://gate.example", None),
            ({"ALL_PROXY": "http://p", "NO_PROXY": ".example"}, "http://gate.example", None),
            ({"ALL_PROXY": "http://p", "NO_PROXY": "*.example, x"}, "http://gate.example", None),
            ({"ALL_PROXY": "http://p", "NO_PROXY": "ate.example"}, "http://gate.example", "http://p"),
            ({"ALL_PROXY": "http://p", "NO_PROXY": "10.0.0.0/8"}, "http://10.1.2.3", None),
            ({"ALL_PROXY": "http://p", "NO_PROXY": "10.0.0.0/8"}, "http://11.1.2.3", "http://p"),
            (
                {"ALL_PROXY": "http://p", "NO_PROXY": "localhost,::1,fd07:b51a::/64"},
                "http://[fd07:b51a::7]",
                None,
            ),
            ({"ALL_PROXY": "http://p", "NO_PROXY": "[fd07::7]"}, "http://[fd07::7]:8000", None),
            ({"ALL_PROXY": "http://p", "NO_PROXY": "[fd07::7]:8000"}, "http://[fd07::7]:8000", None),
            ({"ALL_PROXY": "http://p", "NO_PROXY": "[fd07::7]:9000"}, "http://[fd07::7]:8000", "http://p"),
            ({"ALL_PROXY": "http://p", "NO_PROXY": "gate.example:443"}, "https://gate.example", None),
            ({"ALL_PROXY": "http://p", "NO_PROXY": "10.1.2.3:80"}, "https://10.1.2.3", "http://p"),
            ({"ALL_PROXY": "http://p", "NO_PROXY": "x gate.example."}, "http://gate.example", None),
            ({"ALL_PROXY": "http://p", "NO_PROXY": "xn--e1afmkfd.com"}, "http://пример.com", None),
            ({"ALL_PROXY": " http://p\n"}, "http://gate.example", "http://p"),
            ({"ALL_PROXY": "  "}, "http://gate.example", None),
            (
                {"ALL_PROXY": "http://p", "NO_PROXY": "[::1], 1.2.3.4/99,,/"},
                "http://gate.example",
                "http://p",
            ),
        ],
    )
    def test_the_environment_names_the_proxy(
        self, setenv: Callable[..., None], variables: dict[str, str], address: str, proxy: str | None
    ) -> None:
        setenv(**variables)
        found = find_proxy(httpx.URL(address))
        assert (str(found.url) if found else None) == proxy

    @pytest.mark.parametrize(
        ("proxy", "message"),
        [
            ("socks://user:secret@proxy:7890/", "socks:// is no http, https, socks5 or socks5h"),
            ("socks5h://proxy:1080", "needs the package socksio"),
            ("http://[::1", "ALL_PROXY cannot be used"),
            ("http://", "it names no host"),
            ("http://x..y:3128", "it names no host"),
        ],
    )
    def test_a_proxy_that_cannot_be_used_is_refused_in_one_sentence(
        self, setenv: Callable[..., None], bot: MakeBot, proxy: str, message: str
    ) -> None:
        setenv(ALL_PROXY=proxy)
        with pytest.raises(Misconfigured, match=message) as refused:
            bot(url="http://gate.example")
        assert "\n" not in str(refused.value) and "secret" not in str(refused.value)

    def test_the_client_asks_through_the_proxy(
        self, setenv: Callable[..., None], service: StubService, bot: MakeBot
    ) -> None:
        setenv(HTTP_PROXY=service.url)
        assert bot(url="http://gate.example").refresh().problem is not None
        assert service.requests[0].path == "http://gate.example/api/v1/active/signed/"

    @pytest.mark.parametrize(
        "variables",
        [
            {"ALL_PROXY": "socks://127.0.0.1:7890/"},
            {"ALL_PROXY": "socks5h://127.0.0.1:1080"},
            {"NO_PROXY": "localhost,::1,fd07:b51a:cc66:f0::/64"},
            {"NO_PROXY": "[::1]"},
            {"SSL_CERT_FILE": "/nonexistent.pem"},
            {"SSLKEYLOGFILE": "/nonexistent/keys"},
        ],
        ids=str,
    )
    def test_the_command_ends_in_one_line_whatever_the_environment_holds(
        self,
        setenv: Callable[..., None],
        monkeypatch: pytest.MonkeyPatch,
        cache_dir: Path,
        capsys: pytest.CaptureFixture[str],
        variables: dict[str, str],
    ) -> None:
        monkeypatch.setattr(http_client, "_load_certificates", http_client._load_certificates.__wrapped__)
        setenv(CRPBOT_URL="http://127.0.0.1:9", CRPBOT_TOKEN=TOKEN, CRPBOT_PUBLIC_KEY="34" * 32, **variables)
        assert main(["active", "--timeout", "1", "--cache-dir", str(cache_dir)]) == 1
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
        assert "cannot be re" in line


class TestOtherSystems:
    def test_without_what_only_unix_has_a_bot_follows_saves_and_restarts(
        self, service: StubService, cache_dir: Path, old: Release, new: Release, candle_file: Path
    ) -> None:
        check_other_system([*PYTHON, *WARNINGS], service, cache_dir, old, new, candle_file)


class TestReadOnlyFolder:
    PROGRAM = """
import json, sys
import polars as pl
from crpbot_runtime import CacheFailed, Client
candles = pl.read_parquet(sys.argv[1])
try:
    client = Client(*sys.argv[2:], max_age_s=float("inf"))
except CacheFailed as failed:
    print(json.dumps(str(failed)))
    sys.exit()
print(json.dumps([client.active.revision, str(client.active.problem)]), flush=True)
sys.stdin.readline()
client.refresh()
decision = client.predict("BTC", candles)
print(json.dumps([decision.revision, decision.release, decision.reason, str(client._updater._cache.folder)]), flush=True)
client.close()
"""

    @contextmanager
    def reading(
        self, service: StubService, candle_file: Path, cache_dir: Path, read_only: Path
    ) -> Iterator[subprocess.Popen[str]]:
        """A bot that may not write to `read_only`, also where the tests run as root."""
        folders = [path for path in (read_only, *read_only.rglob("*")) if path.is_dir()]
        for folder in folders:
            folder.chmod(0o555)
        prctl = ctypes.CDLL(None).prctl
        arguments = (candle_file, service.url, TOKEN, service.public_key, cache_dir)
        options = {"preexec_fn": lambda: prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE)}
        with running(PYTHON, self.PROGRAM, *arguments, **options) as bot:
            yield bot
        for folder in folders:
            folder.chmod(0o755)

    def test_a_bot_works_from_a_copy_of_a_read_only_folder_and_says_so(
        self,
        service: StubService,
        cache_dir: Path,
        bot: MakeBot,
        old: Release,
        new: Release,
        candle_file: Path,
    ) -> None:
        service.point_at(old)
        bot().refresh()
        with self.reading(service, candle_file, cache_dir, cache_dir) as child:
            revision, problem = read_line(child)
            assert revision == 1, "the set in the folder is used"
            assert "cannot be written to (Permission denied)" in problem
            service.point_at(new)
            tell(child)
            revision, release, reason, copy = read_line(child)
            assert (revision, release) == (2, new.number), "it follows all the same"
            assert reason == problem
            assert child.wait(30) == 0
        assert not Path(copy).exists()

    def test_a_folder_that_cannot_be_made_is_refused_in_one_sentence(
        self, service: StubService, tmp_path: Path, candle_file: Path
    ) -> None:
        parent = tmp_path / "read-only"
        parent.mkdir()
        with self.reading(service, candle_file, parent / "models", parent) as child:
            assert read_line(child) == f"{parent / 'models'}: Permission denied"
