"""The services of the gates: policies, measurements and diagnoses."""

from gates.services.judging import (
    compute_digest,
    find_diagnosis,
    judge,
    judge_again,
    judge_latest,
    preview_outcomes,
)
from gates.services.measuring import diagnose_here, measure, newest_baseline
from gates.services.policies import (
    adopt_policy,
    ensure_own_policies,
    find_policy,
    policy_in_force,
    propose_policy,
)

__all__ = [
    "adopt_policy",
    "compute_digest",
    "diagnose_here",
    "ensure_own_policies",
    "find_diagnosis",
    "find_policy",
    "judge",
    "judge_again",
    "judge_latest",
    "measure",
    "newest_baseline",
    "policy_in_force",
    "preview_outcomes",
    "propose_policy",
]
