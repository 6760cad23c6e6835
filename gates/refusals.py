"""What the database refuses of policies and diagnoses."""

from audit import triggers

REFUSALS = [
    *triggers.append_only("gates_gatepolicy"),
    *triggers.append_only("gates_policyadoption"),
    *triggers.append_only("gates_diagnosis"),
    *triggers.append_only("gates_gateresult"),
    triggers.Refusal(
        "gates_measurement_body_once",
        "gates_measurement",
        "UPDATE",
        "a measurement is written once",
        "OLD.body <> '' AND NEW.body <> OLD.body",
    ),
    triggers.Refusal("gates_measurement_kept", "gates_measurement", "DELETE", "measurements are kept"),
    triggers.Refusal(
        "gates_diagnosis_of_its_bundle",
        "gates_diagnosis",
        "INSERT",
        "a diagnosis must be of the bundle, coin and dataset that were measured",
        "NOT EXISTS (SELECT 1 FROM gates_measurement m JOIN training_bundle b ON b.id = m.bundle_id"
        " WHERE m.id = NEW.measurement_id AND m.bundle_id = NEW.bundle_id AND m.dataset_id = NEW.dataset_id"
        " AND b.coin_id = NEW.coin_id)",
    ),
]
