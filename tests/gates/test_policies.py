"""A policy is a numbered row that two people put in force."""

import pytest

from gates import services

pytestmark = [pytest.mark.django_db, pytest.mark.postgresql]


def test_the_service_starts_under_the_seeds_own_thresholds() -> None:
    policy = services.policy_in_force()
    assert policy.number == 1
    assert policy.proposed_by == "the seed plan"
    services.ensure_seed_policy()
    assert policy.adoptions.count() == 1
