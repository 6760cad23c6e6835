"""Database guards of the audit chain."""

from audit import triggers

GUARDS = [
    *triggers.build_append_only("audit_auditevent"),
    triggers.Guard(
        "audit_auditevent_follows",
        "audit_auditevent",
        "INSERT",
        "an audit event must follow the last one",
        "NEW.seq <> (SELECT COALESCE(MAX(seq), 0) + 1 FROM audit_auditevent)"
        " OR (NEW.seq > 1 AND NEW.previous_hash <>"
        " (SELECT hash FROM audit_auditevent WHERE seq = NEW.seq - 1))",
    ),
]
