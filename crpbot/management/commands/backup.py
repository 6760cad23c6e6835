from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from django.core.management.base import CommandParser

from accounts.commands import ActingCommand
from common.commands import serialize
from common.errors import Conflict
from crpbot.backup import drill, restore, retention, schedule, seal, store
from crpbot.backup.api import Backups
from crpbot.backup.restore import Restored
from crpbot.backup.seal import Access
from crpbot.backup.store import Manifest
from deploy.models import BackupTask
from deploy.rules import BackupKind, BackupState

ACTIONS = ("create", "list", "verify", "restore", "files", "drill", "prune", "key", "request")
OWN_ACTIONS = ("carry-out", "rehearse")
"""What reconcile and a drill start."""
SHELL = "manage.py backup"
SHOWN = 5
WAIT_SECONDS = 600.0
"""For a backup or a drill that is under way, such as one of reconcile, before one is made in a shell."""


class Command(ActingCommand):
    help = (
        "Back up the rows of the database and the stored files, as of one audit head; list and verify backups; restore one"
        " into an empty database; files: copy missing stored files back; drill: restore one into a scratch database and"
        " check it; prune: remove those that CRPBOT_BACKUP_KEEP does not keep; key: print the public key that verifies them."
        " request: have reconcile make one, as an administrator. Backups lie in CRPBOT_BACKUP_DIR, or in the bucket"
        " CRPBOT_BACKUP_BUCKET. The private signing keys are not in them."
    )

    def add_own_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("do", choices=[*ACTIONS, *OWN_ACTIONS], metavar=f"{{{','.join(ACTIONS)}}}")
        parser.add_argument("name", nargs="?", default="", help="of the backup (default: the newest)")
        parser.add_argument(
            "--without-journal",
            action="store_true",
            help="for restore: carry nothing over that was closed or rolled back since",
        )
        parser.add_argument("--drill", action="store_true", help="for request: a drill instead of a backup")
        parser.add_argument("--reason", default="", help="for request: recorded in the audit history")
        parser.add_argument(
            "--public-key",
            default="",
            metavar="HEX",
            help="for verify, restore and drill: of the key that signed it (default: this service's own)",
        )
        parser.add_argument(
            "--identity",
            default="",
            metavar="FILE",
            help="for restore and drill: identities of age that decrypt it",
        )

        parser.add_argument(
            "--wait",
            type=float,
            default=WAIT_SECONDS,
            metavar="SECONDS",
            help=f"for create and drill: at most, for another one under way (default: {WAIT_SECONDS:.0f})",
        )

    def answer(self, **options: Any) -> dict[str, Any]:
        name, public_key, identity = options["name"], options["public_key"], options["identity"]
        access = {"public_key": public_key, "identity_file": identity}
        match options["do"]:
            case "create":
                task = schedule.run_now(BackupKind.BACKUP, requested_by=SHELL, wait_seconds=options["wait"])
                created = _describe(store.read_manifest(task.backup))
                return {"created": created, "removed": task.result.get("removed", [])}
            case "list":
                return {
                    "backups": list(map(_describe_listed, store.list_names())),
                    "tasks": [serialize(Backups.Output, task) for task in BackupTask.objects.all()[:SHOWN]],
                }
            case "verify":
                manifest = store.read_manifest(name, Access.build(public_key=public_key))
                if damage := list(store.find_damage(manifest)):
                    raise Conflict(
                        f"{len(damage)} part(s) of backup {manifest.name} cannot be used. {damage[0]}"
                    )
                return {"verified": _describe(manifest)}
            case "drill":
                task = schedule.run_now(
                    BackupKind.DRILL, requested_by=SHELL, wait_seconds=options["wait"], name=name, **access
                )
                return {"drilled": task.result}
            case "files":
                return {"files_copied": restore.restore_files(name, access=Access.build(**access))}
            case "prune":
                return {"pruned": retention.prune()}
            case "key":
                return {"public_key": seal.get_public_hex()}
            case "request":
                kind = BackupKind.DRILL if options["drill"] else BackupKind.BACKUP
                requested = schedule.request(kind, actor=self.actor(options), reason=options["reason"])
                return {"requested": serialize(Backups.Output, requested)}
            case "carry-out":
                carried_out = schedule.carry_out_waiting()
                return {"carried_out": carried_out and serialize(Backups.Output, carried_out)}
            case "rehearse":
                return {"rehearsed": drill.rehearse(name, Access.build(**access))}
        with_journal = not options["without_journal"]
        restored = restore.restore_backup(name, access=Access.build(**access), with_journal=with_journal)
        return {"restored": _describe_restored(restored)}

    def is_failure(self, answer: dict[str, Any]) -> bool:
        return bool(answer.get("created", {}).get("lost"))

    def format_answer(self, answer: dict[str, Any]) -> str:
        return "\n".join(_format(answer))


def _describe(manifest: Manifest) -> dict[str, Any]:
    return {
        "name": manifest.name,
        "created_at": manifest.created_at,
        "age_seconds": round(manifest.age_seconds),
        "head": asdict(manifest.head),
        "revision": manifest.revision,
        "rows": sum(manifest.rows.values()),
        "files": len(manifest.files),
        "size": manifest.size,
        "lost": manifest.lost,
        "is_encrypted": bool(manifest.recipients),
    }


def _describe_listed(name: str) -> dict[str, Any]:
    """Whatever key signed it. What cannot be read hides no other: anybody who can write to the store may have added it."""
    try:
        described = _describe(store.read_unverified(name))
        _format_backup(described)
    except (Conflict, ValueError, TypeError, AttributeError, KeyError):
        return {"name": name, "problem": "Its manifest cannot be read."}
    return described


def _describe_restored(restored: Restored) -> dict[str, Any]:
    return {
        "backup": _describe(restored.manifest),
        "files_copied": restored.files,
        "carried_over": restored.afterwards.done,
        "to_decide": restored.afterwards.to_decide,
        "accounts": restored.accounts,
        "tokens": restored.tokens,
        "missing_revisions": restored.missing_revisions,
    }


def _format(answer: dict[str, Any]) -> Iterator[str]:
    match answer:
        case {"created": backup, "removed": removed}:
            yield f"Backup {_format_backup(backup)}. It was read back and is complete."
            if backup["lost"]:
                yield f"But the service itself has lost {len(backup['lost'])} file(s), such as sha256:{backup['lost'][0]}."
            if removed:
                yield f"Removed: {', '.join(removed)}."
        case {"backups": backups}:
            yield from map(_format_backup, backups)
            if not backups:
                yield "There is no backup yet: `manage.py backup create` makes one."
            yield from map(_format_task, answer["tasks"])
        case {"verified": backup}:
            yield f"Backup {_format_backup(backup)}. Every part was read and is complete."
        case {"drilled": drilled}:
            yield (
                f"Backup {drilled['name']} was restored into a scratch database: its audit chain is sound, and its pointer"
                f" at revision {drilled['revision'] or 'none'} proven."
            )
        case {"files_copied": count}:
            yield f"{count} file(s) were missing or damaged, and were copied back."
        case {"pruned": removed}:
            yield f"Removed: {', '.join(removed) or 'none'}."
        case {"requested": task}:
            yield f"{_format_task(task)}. Reconcile carries it out within seconds."
        case {"carried_out": task}:
            yield _format_task(task) if task else "No backup and no drill waits."
        case {"public_key": public_key}:
            yield public_key
        case {"restored": restored}:
            yield from _format_restored(restored)


def _format_backup(backup: dict[str, Any]) -> str:
    if "problem" in backup:
        return f"{backup['name']}: {backup['problem']}"
    return (
        f"{backup['name']}: {backup['rows']:,} rows, {backup['files']:,} files, {backup['size'] / 1e6:,.1f} MB,"
        f" pointer at revision {backup['revision'] or 'none'}, audit head {backup['head']['seq']}"
        f"{', encrypted' * backup['is_encrypted']}"
    )


def _format_task(task: dict[str, Any]) -> str:
    when = task["ended_at"] or task["started_at"] or task["requested_at"]
    why = f": {task['reason']}" if task["state"] == BackupState.FAILED else ""
    return f"{task['kind']} {task['id']}, {task['state']} since {when}, by {task['requested_by']}{why}"


def _format_restored(restored: dict[str, Any]) -> Iterator[str]:
    yield f"Restored {_format_backup(restored['backup'])}. The audit chain is sound."
    for sentence in restored["carried_over"]:
        yield f"Since the backup, and so carried over: {sentence}."
    for sentence in restored["to_decide"]:
        yield f"To decide: {sentence}"
    yield "Accounts and tokens that are open now. Close those that must not be:"
    for account in restored["accounts"]:
        yield f"  account {account['name']}: {', '.join(account['roles'])}"
    for token in restored["tokens"]:
        yield f"  token {token['id']} of {token['owner']}: {token['name']} ({token['scope']})"
    if missing := restored["missing_revisions"]:
        yield (
            f"Bots are given nothing until an approver advances the revision: `manage.py advance_revision --by {missing}"
            " --reason …`."
        )
