"""Bots and services of different versions: each is understood, or refused in one sentence that says what to do (rule 32)."""

import json
from pathlib import Path
from typing import Any

import pytest

from crpbot_runtime.errors import SnapshotRefused
from crpbot_runtime.version import OLDEST_READER, PROTOCOL
from deploy.api.bots import parse_heartbeat
from deploy.models import SigningKey
from deploy.serving import protocol, signing
from tests import scenarios
from tests.runtime import earlier_clients
from tests.runtime.conftest import COINS, MakeBot, ReleaseOf, wait_until, watching
from tests.runtime.stub_service import TOKEN, Release, StubService

pytestmark = pytest.mark.slow

NEWER = PROTOCOL + 7


def state(service: StubService, version: int, oldest_reader: int, **changes: Any) -> None:
    """The service writes its snapshots in another protocol."""
    written = {"protocol": {"version": version, "oldest_reader": oldest_reader}, **changes}
    service.edit = lambda document: document.update(written)


def test_client_and_service_of_one_version_have_one_protocol() -> None:
    assert (protocol.VERSION, protocol.OLDEST_READER <= PROTOCOL) == (PROTOCOL, True)
    assert protocol.find_refusal({"version": PROTOCOL, "oldest_reader": OLDEST_READER}) == ""


def test_a_service_that_states_no_protocol_is_followed_and_told_none(
    service: StubService, bot: MakeBot, old: Release, release_of: ReleaseOf
) -> None:
    service.edit = lambda document: document.pop("protocol")
    service.point_at(old)
    client = bot(spread_s=0)
    with watching(client):
        wait_until(lambda: service.heartbeats and service.heartbeats[-1]["revision"], "it reports")
        assert release_of(client) == old
    assert all("protocol" not in said for said in service.heartbeats)


def test_a_service_that_states_its_protocol_is_told_that_of_the_client(
    service: StubService, bot: MakeBot, old: Release
) -> None:
    service.point_at(old)
    with watching(bot(spread_s=0)):
        wait_until(lambda: service.heartbeats and service.heartbeats[-1]["revision"], "it reports")
    assert service.heartbeats[-1]["protocol"] == {"version": PROTOCOL, "oldest_reader": OLDEST_READER}


def test_a_newer_snapshot_for_this_client_too_is_followed(
    service: StubService, bot: MakeBot, old: Release, new: Release, release_of: ReleaseOf
) -> None:
    service.point_at(old)
    client = bot(spread_s=0)
    with watching(client):
        wait_until(lambda: client.active.release == old.number, "the first release is in use")
        state(service, NEWER, PROTOCOL, added={"by": "a later version"})
        service.point_at(new)
        wait_until(lambda: client.active.release == new.number, "the move is followed")
        assert release_of(client) == new
        assert client.active.problem is None


def test_a_snapshot_for_newer_clients_only_is_refused_in_one_sentence(
    service: StubService, bot: MakeBot, old: Release, new: Release, release_of: ReleaseOf
) -> None:
    service.point_at(old)
    client = bot(spread_s=0)
    client.refresh()
    state(service, NEWER, NEWER, line=["another", "form"])
    service.point_at(new)
    problem = client.refresh().problem
    assert isinstance(problem, SnapshotRefused)
    assert str(problem) == (
        f"it is written in protocol {NEWER}, for clients of protocol {NEWER} or later, and this client has protocol"
        f" {PROTOCOL}: install the crpbot-runtime of the service's version"
    )
    assert release_of(client) == old, "what is in use stays"


WATCH = """
import sys, threading, time
from crpbot_runtime import Client
url, token, key, folder = sys.argv[1:]
stop = threading.Event()
with Client(url, token, key, folder, spread_s=0, instance="earlier") as client:
    threading.Timer(4, stop.set).start()
    client.watch(lambda active: print(active.release, active.problem, flush=True), every_s=0.1, stop=stop)
"""
READ = """
import sys
from crpbot_runtime.protocol.envelope import verify_envelope
from crpbot_runtime.protocol.public_keys import PublicKeys
signed = verify_envelope(sys.stdin.read().encode(), PublicKeys(sys.argv[1]))
print(signed.snapshot.revision, signed.snapshot.line, *sorted(signed.snapshot.models), signed.fallback.line, signed.next)
"""


@pytest.mark.parametrize("earlier", earlier_clients.COMMITS)
class TestAnEarlierClient:
    @pytest.mark.django_db
    def test_reads_a_snapshot_of_this_service(self, earlier: int, tmp_path: Path) -> None:
        client = earlier_clients.extract(earlier, tmp_path)
        scenarios.service_in_use()
        body = signing.get_envelope().body.decode()
        key = SigningKey.objects.get().public_hex
        said = earlier_clients.run(client, "-c", READ, key, typed=body)
        assert said.split() == ["1", "v6_enhanced", *COINS, "v5", "None"]

    def test_follows_a_move_and_its_heartbeats_are_understood(
        self, earlier: int, service: StubService, old: Release, tmp_path: Path
    ) -> None:
        client = earlier_clients.extract(earlier, tmp_path / "client")
        service.point_at(old)
        options = (service.url, TOKEN, service.public_key, str(tmp_path / "models"))
        said = earlier_clients.run(client, "-c", WATCH, *options)
        assert said.split("\n")[-2] == f"{old.number} None"
        heard = [parse_heartbeat(json.dumps(each).encode()) for each in service.heartbeats]
        assert heard, "it reports"
        assert {each.protocol if each else None for each in heard} == {earlier}
        assert heard[-1] is not None
        assert (heard[-1].revision, heard[-1].running.release) == (1, old.number)
