"""What the database refuses of training records."""

from audit import triggers

REFUSALS = [
    *triggers.append_only("training_epoch"),
    *triggers.frozen("training_dataset", "coin_id", "digest", "is_simulated", "rows", "first_at", "last_at"),
    *triggers.frozen(
        "training_bundle", "digest", "coin_id", "line", "dataset_id", "manifest", "is_simulated", "origin"
    ),
    *triggers.write_once("training_trainingrun", "bundle_id"),
    *triggers.frozen("training_artifact", "bundle_id", "name", "sha256", "size"),
]
