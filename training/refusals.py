"""What the database refuses of training records."""

from audit import triggers
from audit.triggers import Refusal

REFUSALS = [
    *triggers.append_only("training_epoch"),
    *triggers.frozen("training_dataset", "coin_id", "digest", "is_simulated", "rows", "first_at", "last_at"),
    Refusal(
        "training_dataset_judged_once",
        "training_dataset",
        "UPDATE",
        "what was said of a dataset never changes",
        "OLD.verdict <> '' AND (NEW.verdict <> OLD.verdict OR NEW.judgement <> OLD.judgement)",
    ),
    *triggers.frozen(
        "training_bundle", "digest", "coin_id", "line", "dataset_id", "manifest", "is_simulated", "origin"
    ),
    *triggers.write_once("training_trainingrun", "bundle_id"),
    *triggers.frozen("training_artifact", "bundle_id", "name", "sha256", "size"),
]
