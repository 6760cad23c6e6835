"""What is asked of the gates: policies, measurings and judgements."""

from gates.services.judging import (
    diagnosis_digest,
    find_diagnosis,
    foretell,
    judge,
    judge_again,
    judge_stored,
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
    "diagnose_here",
    "diagnosis_digest",
    "ensure_own_policies",
    "find_diagnosis",
    "find_policy",
    "foretell",
    "judge",
    "judge_again",
    "judge_stored",
    "measure",
    "newest_baseline",
    "policy_in_force",
    "propose_policy",
]
