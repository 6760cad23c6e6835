"""Database guards of machines: what was ordered, and a final bill, never change."""

from audit import triggers
from audit.triggers import Guard

GUARDS = [
    *triggers.build_frozen(
        "machines_machine",
        *("life", "budget_id", "requested_by", "region", "market", "usd_per_hour", "allowed_seconds"),
    ),
    Guard(
        "machines_machine_bill_is_final",
        "machines_machine",
        "UPDATE",
        "the bill of a machine that ended never changes",
        "OLD.state IN ('stopped', 'failed') AND (NEW.state <> OLD.state OR NEW.billed_seconds <> OLD.billed_seconds"
        " OR NEW.cost_usd <> OLD.cost_usd)",
    ),
    *triggers.build_append_only("machines_machineprice"),
    *triggers.build_append_only("machines_monthlylimit"),
]
