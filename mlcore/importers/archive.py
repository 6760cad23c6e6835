"""Checks a torch checkpoint's archive before it is read: uncompressed, without links, and not too large."""

import io
import zipfile

from mlcore.errors import ImportRefused

MAX_ENTRIES = 1024
MAX_BYTES = 64 * 2**20
"""Of all entries together. The network has 260 kB, an optimizer's state twice that."""

_KIND, _SYMLINK = 0o170000, 0o120000


def check_archive(data: bytes) -> None:
    """Raises ImportRefused for an archive that torch.save did not write."""
    try:
        entries = zipfile.ZipFile(io.BytesIO(data)).infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise ImportRefused(f"its archive is damaged or cut off ({error})") from error
    if len(entries) > MAX_ENTRIES:
        raise ImportRefused(f"its archive has {len(entries):,} entries; a checkpoint has a few dozen")
    for entry in entries:
        _check_entry(entry)
    if (total := sum(entry.file_size for entry in entries)) > MAX_BYTES:
        raise ImportRefused(f"its archive unpacks to {total:,} bytes; the limit is {MAX_BYTES:,}")


def _check_entry(entry: zipfile.ZipInfo) -> None:
    name = entry.orig_filename
    if name.startswith("/") or "\\" in name or "\0" in name or ".." in name.split("/"):
        raise ImportRefused(f"its archive has an entry named {name[:80]!r}, which leads out of it")
    if entry.external_attr >> 16 & _KIND == _SYMLINK:
        raise ImportRefused(f"its archive has a link in it, {name[:80]!r}")
    if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
        raise ImportRefused(f"its archive is compressed ({name[:80]!r}); torch.save compresses nothing")
