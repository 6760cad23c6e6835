"""Withdrawing a dataset on its page."""

import pytest

from tests.pages.conftest import SignedIn
from tests.pages.example_data import ExampleData

pytestmark = pytest.mark.django_db


def test_an_operator_withdraws_a_dataset_and_pages_show_it(
    examples: ExampleData, signed_in: SignedIn
) -> None:
    client, path = signed_in("olivia"), f"/datasets/{examples.market.pk}/"
    assert "Withdraw permanently" in client.get(path).content.decode()
    answer = client.post(f"{path}withdraw/", {"reason": "these are ETH's"}, follow=True)
    page = answer.content.decode()
    assert (answer.status_code, "Withdraw permanently" in page) == (200, False)
    assert "were withdrawn by olivia" in page and "these are ETH&#x27;s" in page
    assert ">withdrawn</span>" in client.get("/datasets/").content.decode()


def test_a_refusal_and_a_missing_reason_are_shown_at_the_form(
    examples: ExampleData, signed_in: SignedIn
) -> None:
    client, path = signed_in("anna"), f"/datasets/{examples.dataset.pk}/withdraw/"
    held = client.post(path, {"reason": "no good"})
    assert (held.status_code, "it is used by" in held.content.decode()) == (409, True)
    assert client.post(path, {"reason": ""}).status_code == 400


def test_a_viewer_cannot_withdraw(examples: ExampleData, signed_in: SignedIn) -> None:
    client, path = signed_in("victor"), f"/datasets/{examples.market.pk}/"
    assert "Withdraw permanently" not in client.get(path).content.decode()
    assert client.post(f"{path}withdraw/", {"reason": "no good"}).status_code == 403
