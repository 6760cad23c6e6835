"""Database guards of policies, attempts and diagnoses."""

from audit import triggers

GUARDS = [
    *triggers.build_append_only("gates_gatepolicy"),
    *triggers.build_append_only("gates_policyadoption"),
    *triggers.build_append_only("gates_diagnosis"),
    *triggers.build_append_only("gates_gateresult"),
    triggers.Guard(
        "gates_measurement_body_once",
        "gates_measurement",
        "UPDATE",
        "a measurement is written once",
        "OLD.body <> '' AND NEW.body <> OLD.body",
    ),
    *triggers.build_append_only("gates_attempt"),
    triggers.Guard(
        "gates_attempt_of_its_event",
        "gates_attempt",
        "INSERT",
        "an attempt is a success in the audit chain",
        "NOT EXISTS (SELECT 1 FROM audit_auditevent e WHERE e.seq = NEW.seq AND e.kind = 'measurement.succeeded'"
        " AND e.object_type = 'measurement' AND e.object_id = CAST(NEW.measurement_id AS TEXT))"
        " OR NOT EXISTS (SELECT 1 FROM gates_measurement m JOIN training_bundle b ON b.id = m.bundle_id"
        " WHERE m.id = NEW.measurement_id AND m.bundle_id = NEW.bundle_id AND m.dataset_id = NEW.dataset_id"
        " AND b.coin_id = NEW.coin_id)",
    ),
    *triggers.build_frozen("gates_measurement", "bundle_id", "dataset_id", "second_run_id"),
    triggers.Guard(
        "gates_diagnosis_of_its_bundle",
        "gates_diagnosis",
        "INSERT",
        "a diagnosis must be of the bundle, coin and dataset that were measured",
        "NOT EXISTS (SELECT 1 FROM gates_measurement m JOIN training_bundle b ON b.id = m.bundle_id"
        " WHERE m.id = NEW.measurement_id AND m.bundle_id = NEW.bundle_id AND m.dataset_id = NEW.dataset_id"
        " AND b.coin_id = NEW.coin_id)",
    ),
    triggers.Guard(
        "gates_diagnosis_passes_what_was_measured",
        "gates_diagnosis",
        "INSERT",
        "a diagnosis passes only what was measured to the end, and judges by its policy as it is",
        "(NEW.verdict = 'passed' AND NOT EXISTS (SELECT 1 FROM gates_measurement m"
        " WHERE m.id = NEW.measurement_id AND m.state = 'succeeded' AND m.body = NEW.measured))"
        " OR NOT EXISTS (SELECT 1 FROM gates_gatepolicy p WHERE p.id = NEW.policy_id AND p.body = NEW.policy_body)",
    ),
    triggers.Guard(
        "gates_gateresult_of_its_diagnosis",
        "gates_gateresult",
        "INSERT",
        "a diagnosis that passed has no required gate that did not",
        "NEW.is_required AND NEW.verdict <> 'passed' AND EXISTS (SELECT 1 FROM gates_diagnosis d"
        " WHERE d.id = NEW.diagnosis_id AND d.verdict = 'passed')",
    ),
    triggers.Guard(
        "gates_policyadoption_takes_two",
        "gates_policyadoption",
        "INSERT",
        "a policy is adopted by another person than who proposed it, and only a newer one than is in force",
        "EXISTS (SELECT 1 FROM gates_gatepolicy p WHERE p.id = NEW.policy_id AND p.number > 1"
        " AND p.proposed_by = NEW.adopted_by)"
        " OR (SELECT p.number FROM gates_gatepolicy p WHERE p.id = NEW.policy_id) <= (SELECT COALESCE(MAX(p.number), 0)"
        " FROM gates_policyadoption a JOIN gates_gatepolicy p ON p.id = a.policy_id)",
    ),
]
