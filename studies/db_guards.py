"""Database guards of studies: what was asked, and what was tried, never change."""

from audit import triggers

GUARDS = [
    *triggers.build_frozen(
        "studies_study",
        *(
            "dataset_id",
            "line",
            "parameters",
            "ranges",
            "objective",
            "sampler",
            "prunes",
            "seed",
            "max_trials",
        ),
        *("parallel", "budget_id", "launched_by"),
    ),
    *triggers.build_frozen("studies_trial", "study_id", "number", "parameters", "run_id"),
]
