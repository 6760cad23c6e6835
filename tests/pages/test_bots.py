"""The bots page, and what the board and a release awaiting approval show about bots."""

import html
import re
from datetime import timedelta

import pytest
from django.utils import timezone

from deploy.alarms import detect
from deploy.bots.convergence import monitor_bots
from deploy.management import fleet_report
from deploy.models import Acknowledgement, Bot, Convergence, Release
from deploy.pointer import pointer
from tests import scenarios
from tests.pages import example_data
from tests.pages.conftest import SignedIn
from tests.pages.example_data import ExampleData

pytestmark = pytest.mark.django_db


def words(page: str) -> str:
    return html.unescape(" ".join(re.sub(r"<[^>]+>", " ", page).split()))


def shown(signed_in: SignedIn, path: str = "/bots/") -> str:
    return words(signed_in("victor").get(path).content.decode())


def test_board_shows_how_many_bots_run_the_live_release(examples: ExampleData, signed_in: SignedIn) -> None:
    assert re.search(r"Bots 3 of 3 bots on revision \d+", shown(signed_in, "/"))


def test_silent_bots_are_counted_too_and_the_count_is_not_green(
    examples: ExampleData, signed_in: SignedIn
) -> None:
    Bot.objects.filter(instance="lab").update(last_heard_at=timezone.now() - timedelta(minutes=5))
    board = signed_in("victor").get("/").content.decode()
    assert re.search(r"Bots 2 of 3 bots on revision \d+, 1 silent", words(board))
    assert re.search(r'<span class="pill wait">2 of 3 bots', board)
    assert "on 2 of 3 bots" in words(board)
    to_decide = f"/releases/{examples.awaiting.pk}/"
    assert "Of 1 silent bot nothing is known." in shown(signed_in, to_decide)
    assert "nothing is known of the silent ones" in shown(signed_in)
    assert "1 silent" in fleet_report.format_fleet_report(fleet_report.build_fleet_report())


def test_board_and_release_show_how_many_bots_are_ready(examples: ExampleData, signed_in: SignedIn) -> None:
    assert "2 of 3 bots ready" in shown(signed_in, "/")
    to_decide = f"/releases/{examples.awaiting.pk}/"
    assert "2 of 3 bots ready The others are still downloading its files" in shown(signed_in, to_decide)
    Bot.objects.update(prefetched_next=examples.awaiting.pk)
    assert "3 of 3 bots ready They have its files loaded and verified" in shown(signed_in, to_decide)


def test_board_and_bots_show_which_bots_lack_the_fallback(examples: ExampleData, signed_in: SignedIn) -> None:
    assert "on 3 of 3 bots" in shown(signed_in, "/")
    Bot.objects.filter(instance="lab").update(prefetched_fallback=examples.awaiting.pk)
    assert "on 2 of 3 bots" in shown(signed_in, "/")
    page = shown(signed_in)
    assert "used by a pin on 2 of 3 bots the other bots would have to download it first" in page
    assert (page.count("no fallback"), page.count("next: not yet")) == (1, 1)


def test_each_bot_is_listed_with_what_it_runs(examples: ExampleData, signed_in: SignedIn) -> None:
    page = shown(signed_in)
    assert f"Desired state v5 release {examples.fallback.pk} · revision 2" in page
    assert page.count("3 match") == 3
    assert re.search(
        r"trader desk-1 current 2 v5 release \d+ 3 match \d+\.\d s ✓ passed: fallback ✓ passed: next 0\.1\.0",
        page,
    )


def test_bots_with_problems_come_first_with_the_reason(examples: ExampleData, signed_in: SignedIn) -> None:
    example_data.create_failing_bots()
    page = shown(signed_in)
    assert [page.index(name) for name in ("desk-4", "cellar", "desk-1")] == sorted(
        page.index(name) for name in ("desk-4", "cellar", "desk-1")
    )
    assert "Differs: this service never had revision 6." in page
    assert "Stale since 2 hours ago" in page
    assert "Last error: revision 3 is in use but not saved" in page
    assert re.search(r"paper new following – no model none", page)
    assert {alarm.name for alarm in detect.list_alarms()} >= {"mixture", "silent"}
    assert "A bot runs something else than the release of its revision" in shown(signed_in, "/")


def test_a_silent_bot_is_retired_with_a_reason(examples: ExampleData, signed_in: SignedIn) -> None:
    example_data.create_failing_bots()
    silent = Bot.objects.get(instance="cellar")
    path, why = f"/bots/{silent.pk}/retire/", {"reason": "the cellar is closed"}
    client = signed_in("olivia")
    assert client.get("/bots/").content.decode().count("/retire/") == 1
    assert f'href="{path}"' in client.get("/bots/").content.decode()
    assert "paper cellar silent" in words(client.get(path).content.decode())
    assert client.post(path, {"reason": " "}).status_code == 400
    done = words(client.post(path, why, follow=True).content.decode())
    assert "paper (cellar) is retired: it raises no alarm. Its next heartbeat brings it back." in done
    assert "paper cellar gone" in done and "Retire…" not in done
    again = client.post(path, why)
    assert (again.status_code, "is gone already" in words(again.content.decode())) == (409, True)


def test_a_viewer_is_offered_no_retirement(examples: ExampleData, signed_in: SignedIn) -> None:
    example_data.create_failing_bots()
    path, client = f"/bots/{Bot.objects.get(instance='cellar').pk}/retire/", signed_in("victor")
    assert path not in client.get("/bots/").content.decode()
    assert "needs the operator or the approver role" in client.get(path).content.decode()
    assert client.post(path, {"reason": "gone"}).status_code == 403
    assert client.get("/bots/999999/retire/").status_code == 404


def test_text_from_a_bot_is_escaped(examples: ExampleData, signed_in: SignedIn) -> None:
    example_data.send_heartbeat("trader", "desk-1", last_error="<script>alert(1)</script>")
    page = signed_in("victor").get("/bots/").content.decode()
    assert "&lt;script&gt;alert(1)" in page and "<script>alert" not in page


def test_without_a_bot_the_page_explains_heartbeats(examples: ExampleData, signed_in: SignedIn) -> None:
    Bot.objects.all().delete()
    assert "No bot has sent a heartbeat yet" in shown(signed_in)
    assert "Bots no live bot" in shown(signed_in, "/")


def test_the_page_refreshes_itself_and_is_swapped_only_when_it_changed(
    examples: ExampleData, signed_in: SignedIn
) -> None:
    client = signed_in("victor")
    Bot.objects.update(last_heard_at=timezone.now())  # none becomes late meanwhile
    page = client.get("/bots/").content.decode()
    again = re.search(r'hx-get="([^"]+)" hx-trigger="every 5s"', page)
    assert again
    htmx = {"HX-Request": "true"}
    assert client.get(again[1], headers=htmx).status_code == 204
    Bot.objects.filter(instance="lab").update(prefetched_next=examples.awaiting.pk)
    assert client.get(again[1], headers=htmx).status_code == 200
    Bot.objects.filter(instance="lab").update(revision=1)
    assert 'hx-trigger="every 2s"' in client.get("/bots/").content.decode()


def test_a_release_that_is_not_next_names_the_next_one(examples: ExampleData, signed_in: SignedIn) -> None:
    newer: Release = scenarios.Build(seed=21).settled()
    page = shown(signed_in, f"/releases/{examples.awaiting.pk}/")
    assert f"Bots prepare release {newer.pk} , not this one" in page


@pytest.mark.parametrize("model", ["bot", "acknowledgement", "convergence"])
def test_the_admin_is_read_only(model: str, examples: ExampleData, signed_in: SignedIn) -> None:
    monitor_bots()
    client = signed_in(example_data.STAFF)
    assert client.get(f"/admin/deploy/{model}/").status_code == 200
    for action in ("add/", "1/delete/"):
        assert client.post(f"/admin/deploy/{model}/{action}", {"post": "yes"}).status_code in (302, 403)
    assert (Bot.objects.count(), Acknowledgement.objects.count(), Convergence.objects.count()) == (3, 3, 1)


def test_live_predictions_are_collecting_until_every_live_gate_has_enough(
    examples: ExampleData, signed_in: SignedIn
) -> None:
    example_data.approve(examples.awaiting)
    page = f"/releases/{examples.awaiting.pk}/"
    now, start = pointer.get_current(), timezone.now() - timedelta(hours=2)
    assert now is not None
    example_data.send_heartbeat("trader", "desk-1")
    tally = example_data.build_healthy_tally(6)
    example_data.send_window(now.revision, "BTC", start, tally)
    early = shown(signed_in, page)
    assert f"collecting {tally.predictions} predictions by 1 bot" in early
    assert f"At most {tally.predictions} of 3 000 predictions of one bot" in early.replace(",", " ")
    assert "passes the live gates" not in early
    for turn in range(1, 3_000 // tally.predictions + 1):
        example_data.send_window(now.revision, "BTC", start + timedelta(minutes=turn), tally)
    assert "passes the live gates" in shown(signed_in, page)
