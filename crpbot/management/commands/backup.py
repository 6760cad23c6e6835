from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from django.core.management.base import CommandParser

from common.commands import GateCommand
from common.errors import Conflict
from crpbot.backup import create, restore, seal, store
from crpbot.backup.restore import Restored
from crpbot.backup.seal import Access
from crpbot.backup.store import Manifest


class Command(GateCommand):
    help = (
        "Back up the rows of the database and the stored files, as of one audit head; list and verify backups; restore one"
        " into an empty database; drill: restore one into a scratch database and check it. Backups lie in CRPBOT_BACKUP_DIR,"
        " or in the bucket CRPBOT_BACKUP_BUCKET. The private signing keys are not in them."
    )

    def add_own_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("do", choices=["create", "list", "verify", "restore", "drill", "key"])
        parser.add_argument("name", nargs="?", default="", help="of the backup (default: the newest)")
        parser.add_argument("--keep", type=int, help="for create: remove all but so many backups afterwards")
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
            "--rows-only", action="store_true", help="for restore: leave the stored files where they are"
        )

    def answer(self, **options: Any) -> dict[str, Any]:
        name, public_key, identity = options["name"], options["public_key"], options["identity"]
        match options["do"]:
            case "create":
                created = create.create_backup()
                removed = create.prune(options["keep"]) if options["keep"] is not None else []
                return {"created": _describe(created), "removed": removed}
            case "list":
                return {"backups": [_describe(store.read_unverified(each)) for each in store.list_names()]}
            case "verify":
                manifest = store.read_manifest(name, Access.build(public_key=public_key))
                if damage := list(store.find_damage(manifest)):
                    raise Conflict(
                        f"{len(damage)} part(s) of backup {manifest.name} cannot be used. {damage[0]}"
                    )
                return {"verified": _describe(manifest)}
            case "drill":
                return {"drilled": restore.drill(name, public_key=public_key, identity_file=identity)}
            case "key":
                return {"public_key": seal.get_public_hex()}
        access = Access.build(public_key=public_key, identity_file=identity)
        restored = restore.restore_backup(name, access=access, with_files=not options["rows_only"])
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


def _describe_restored(restored: Restored) -> dict[str, Any]:
    return {
        "backup": _describe(restored.manifest),
        "files_copied": restored.files,
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
        case {"verified": backup}:
            yield f"Backup {_format_backup(backup)}. Every part was read and is complete."
        case {"drilled": drilled}:
            yield f"Backup {drilled['name']} was restored into a scratch database; its audit chain is sound."
        case {"public_key": public_key}:
            yield public_key
        case {"restored": restored}:
            yield from _format_restored(restored)


def _format_backup(backup: dict[str, Any]) -> str:
    return (
        f"{backup['name']}: {backup['rows']:,} rows, {backup['files']:,} files, {backup['size'] / 1e6:,.1f} MB,"
        f" pointer at revision {backup['revision'] or 'none'}, audit head {backup['head']['seq']}"
        f"{', encrypted' * backup['is_encrypted']}"
    )


def _format_restored(restored: dict[str, Any]) -> Iterator[str]:
    yield f"Restored {_format_backup(restored['backup'])}. The audit chain is sound."
    yield "Accounts and tokens that were closed after the backup are open again. Close them now:"
    for account in restored["accounts"]:
        yield f"  account {account['name']}: {', '.join(account['roles'])}"
    for token in restored["tokens"]:
        yield f"  token {token['id']} of {token['owner']}: {token['name']} ({token['scope']})"
    if missing := restored["missing_revisions"]:
        yield (
            f"Bots are given nothing until an approver advances the revision: `manage.py advance_revision --by {missing}"
            " --reason …`."
        )
