"""The admin shows what the gates said, and changes nothing."""

import html

import pytest
from django.test import Client

from gates.models import GateResult
from gates.services import judging, policies
from tests import factories, scenarios

pytestmark = pytest.mark.django_db


@pytest.fixture
def staff() -> Client:
    user = factories.person("sam", "viewer")
    user.is_staff = True
    user.save()
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def diagnosis_pk() -> int:
    coin = scenarios.coins()[0]
    data = scenarios.dataset(coin)
    made = scenarios.bundle(coin, data, "v7_fixed", seed=1)
    measurement = scenarios.add_measurement(made, data, scenarios.inaccurate(coin.symbol))
    return judging.judge(measurement, policies.policy_in_force()).pk


@pytest.mark.parametrize("name", ["gatepolicy", "policyadoption", "measurement", "diagnosis"])
def test_every_record_has_a_list_with_its_history(staff: Client, diagnosis_pk: int, name: str) -> None:
    page = staff.get(f"/admin/gates/{name}/")
    assert page.status_code == 200
    assert b"object_type=" + name.encode() in page.content


def test_a_diagnosis_shows_every_gates_sentence(staff: Client, diagnosis_pk: int) -> None:
    page = html.unescape(staff.get(f"/admin/gates/diagnosis/{diagnosis_pk}/change/").content.decode())
    sentences = GateResult.objects.filter(diagnosis=diagnosis_pk).values_list("sentence", flat=True)
    assert [sentence for sentence in sentences if sentence not in page] == []
    assert len(sentences) == len(scenarios.ALWAYS_JUDGED)


@pytest.mark.parametrize("what", ["change", "delete"])
def test_nothing_can_be_changed(staff: Client, diagnosis_pk: int, what: str) -> None:
    answer = staff.post(f"/admin/gates/diagnosis/{diagnosis_pk}/{what}/", {"post": "yes"})
    assert answer.status_code == 403
    assert staff.get("/admin/gates/diagnosis/add/").status_code == 403
