"""Database guards of training records."""

from audit import triggers
from audit.triggers import Guard

GUARDS = [
    *triggers.build_frozen("training_coin", "symbol"),
    Guard(
        "training_coin_is_required_by_a_decision",
        "training_coin",
        "UPDATE",
        "whether a coin is required changes under its own event alone",
        "NEW.is_required IS DISTINCT FROM OLD.is_required AND NOT EXISTS (SELECT 1 FROM audit_auditevent e"
        " WHERE e.seq = (SELECT MAX(seq) FROM audit_auditevent) AND e.object_type = 'coin'"
        " AND e.object_id = CAST(NEW.id AS varchar(20))"
        " AND e.kind = CASE WHEN NEW.is_required THEN 'coin.required' ELSE 'coin.released' END)",
    ),
    *triggers.build_append_only("training_line"),
    *triggers.build_append_only("training_epoch"),
    *triggers.build_frozen(
        "training_dataset",
        *(
            "coin_id",
            "digest",
            "is_simulated",
            "rows",
            "first_at",
            "last_at",
            "interval_seconds",
            "verdict",
            "check_results",
            "import_report",
        ),
    ),
    Guard(
        "training_dataset_withdrawn_once_by_a_decision",
        "training_dataset",
        "UPDATE",
        "candles are withdrawn once, under their own event alone",
        "(NEW.withdrawn_at IS DISTINCT FROM OLD.withdrawn_at OR NEW.withdrawn_by <> OLD.withdrawn_by"
        " OR NEW.withdrawn_reason <> OLD.withdrawn_reason) AND (OLD.withdrawn_at IS NOT NULL"
        " OR NEW.withdrawn_at IS NULL OR NOT EXISTS (SELECT 1 FROM audit_auditevent e"
        " WHERE e.seq = (SELECT MAX(seq) FROM audit_auditevent) AND e.object_type = 'dataset'"
        " AND e.object_id = CAST(NEW.id AS varchar(20)) AND e.kind = 'dataset.withdrawn'))",
    ),
    *triggers.build_frozen(
        "training_bundle",
        *(
            "digest",
            "coin_id",
            "line",
            "dataset_id",
            "interval_seconds",
            "manifest",
            "is_simulated",
            "origin",
        ),
    ),
    *triggers.build_write_once("training_trainingrun", "bundle_id"),
    *triggers.build_frozen("training_trainingrun", "reproduces_id"),
    *triggers.build_frozen("training_artifact", "bundle_id", "name", "sha256", "size"),
]
