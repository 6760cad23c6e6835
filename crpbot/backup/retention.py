"""Which backups stay, and the removal of the others."""

from collections.abc import Callable, Hashable, Sequence
from datetime import datetime, timedelta

from django.conf import settings

from common.errors import Conflict
from crpbot.backup import journal, store

UNUSED_FOR = timedelta(days=1)
"""What belongs to no backup is kept so long: another process may be writing the backup that names it."""
_PERIODS: Sequence[Callable[[datetime], Hashable]] = (
    lambda at: at.date(),
    lambda at: at.isocalendar()[:2],
    lambda at: (at.year, at.month),
)
"""Days, weeks and months, as BACKUP_KEEP counts them."""


def choose_kept(names: Sequence[str], keep: Sequence[int]) -> list[str]:
    """The names of the backups that stay: the newest of each of the last so many days, weeks and months with a backup.

    `names` are sorted, the oldest first. All stay without `keep`; the newest stays always.
    """
    if not keep:
        return list(names)
    kept = set(names[-1:])
    for count, period in zip(keep, _PERIODS, strict=True):
        newest = {period(store.get_time(name)): name for name in names}
        kept |= set(list(newest.values())[len(newest) - min(count, len(newest)) :])
    return [name for name in names if name in kept]


def prune() -> list[str]:
    """Remove the backups that CRPBOT_BACKUP_KEEP does not keep, and the files that only they named; returns their names.

    Only those that this service signed count, or are removed: who can add to the store, with later names, would have it
    remove all the others. Raises Conflict for a manifest that cannot be read, and Unavailable.
    """
    names = store.list_names()
    own = [name for name in names if _is_own(name)]
    kept = choose_kept(own, settings.BACKUP_KEEP)
    removed = [name for name in own if name not in kept]
    for name in removed:
        # First what makes it a backup.
        parts = [f"{store.FOLDER}/{name}/{part}" for part in (store.MANIFEST, store.ROWS)]
        store.delete_older(parts, timedelta(0))
    if not settings.BACKUP_KEEP:
        return removed
    left = [name for name in names if name not in removed]
    used = {file.stored_sha256 for name in left for file in store.read_unverified(name).files.values()}
    unused = [store.get_file_key(sha256) for sha256 in store.list_files() if sha256 not in used]
    unused += [f"{store.FOLDER}/{name}/{store.ROWS}" for name in store.list_unfinished()]
    store.delete_older(unused, UNUSED_FOR)
    if kept:
        store.delete_older(journal.list_older(store.get_time(kept[0])), UNUSED_FOR)
    return removed


def _is_own(name: str) -> bool:
    try:
        store.read_manifest(name)
    except Conflict:
        return False
    return True
