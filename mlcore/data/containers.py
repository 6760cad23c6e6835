"""What the bytes of a file are, whatever its name: unpacks gzip and zip, and names files that hold no candles."""

import io
import lzma
import struct
import zipfile
import zlib
from dataclasses import dataclass
from enum import StrEnum

from mlcore.data.joining import Part, join, order_by_date
from mlcore.errors import CandlesRefused

MAX_TEXT_BYTES = 384 * 1024 * 1024
"""The limit of an unpacked file: a small file could otherwise fill the memory."""

MAX_GZIP_MEMBERS = 100_000
"""Members may be empty, so that the limit of the unpacked text does not end a file of them. bgzip makes 6,000."""

MAX_ZIP_MEMBERS = 1000
_CHUNK_BYTES = 64 * 1024
_QUOTED_LETTERS = 80

_ONE_FILE = "Import one at a time, or join their rows in one file"
_EXPORT = "export the table as CSV or Parquet"
UNPACK = "unpack it, or compress the file as gzip or zip"
_NOT = "it holds no candles"
FETCH, FETCH_LFS = "fetch the file itself", "fetch it with git lfs pull"
_NAMED = {
    b"\x93NUMPY": ("a NumPy array (npy)", "export a table with named columns"),
    b"%PDF": ("a PDF", _EXPORT),
    b"SQLite format 3\0": ("an SQLite database", _EXPORT),
    b"\xd0\xcf\x11\xe0": ("an old Excel file (xls) or Word file (doc)", "save the sheet as CSV"),
    b"\x89HDF": ("an HDF5 file", _EXPORT),
    b"FEA1": ("Feather version 1", "write it again as Feather version 2 or Parquet"),
    b"Obj\x01": ("an Avro file", _EXPORT),
    b"ORC": ("an ORC file", _EXPORT),
    b"BZh": ("bzip2 data", UNPACK),
    b"\xfd7zXZ": ("xz data", UNPACK),
    b"\x28\xb5\x2f\xfd": ("zstd data", UNPACK),
    b"7z\xbc\xaf": ("a 7z archive", UNPACK),
    b"Rar!": ("a RAR archive", UNPACK),
    b"\x89PNG": ("a PNG image", _NOT),
    b"GIF8": ("a GIF image", _NOT),
    b"\xff\xd8\xff": ("a JPEG image", _NOT),
    b"\x7fELF": ("a program", _NOT),
}
"""By the first bytes: what each is, and what to do."""

_HTML = tuple(
    b"<" + tag for tag in (b"!doctype html", b"html", b"head", b"body", b"!--", b"meta", b"title", b"script")
)

_ZIP_CONTENTS = (
    ("[Content_Types].xml", "an Office document such as Excel (xlsx); save the sheet as CSV"),
    ("mimetype", "an OpenDocument file such as ods; save the sheet as CSV"),
    ("constants.pkl", "a TorchScript model, not candles; models are imported elsewhere"),
    ("data.pkl", "a torch checkpoint, not candles; models are imported elsewhere"),
    (".npy", "NumPy arrays (npz); export a table with named columns"),
    ("META-INF/MANIFEST.MF", "a Java archive, not candles"),
)


class Kind(StrEnum):
    """The form of the bytes inside gzip or zip, or of the file itself."""

    TEXT = "CSV"
    JSON = "JSON"
    PARQUET = "Parquet"
    ARROW_FILE = "Arrow file (feather)"
    ARROW_STREAM = "Arrow stream"


@dataclass(frozen=True)
class Content:
    """The unpacked bytes of a file."""

    kind: Kind
    data: bytes
    packed_in: str = ""
    notes: tuple[str, ...] = ()
    parts: tuple[Part, ...] = ()
    """The files of a zip that `data` was joined of."""

    @property
    def format(self) -> str:
        return f"{self.kind} in {self.packed_in}" if self.packed_in else str(self.kind)


def open_content(data: bytes) -> Content:
    """Raises CandlesRefused that says what the file is instead, and quotes its first line if it is text."""
    if not data:
        raise CandlesRefused("the file is empty")
    if data[:2] == b"\x1f\x8b":
        return Content(_identify(unpacked := _unpack_gzip(data)), unpacked, "gzip")
    if data[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return _build_content(_unpack_zip(data))
    return Content(_identify(data), data)


def _build_content(files: list[tuple[str, bytes]]) -> Content:
    """The content of a zip: of its one file, or of its CSV files joined. Raises CandlesRefused."""
    kinds = {name: _identify(unpacked) for name, unpacked in files}
    if len(files) == 1:
        ((name, kind),) = kinds.items()
        return Content(kind, files[0][1], "zip", (f"read {name} of the zip",))
    if other := next((name for name, kind in kinds.items() if kind != Kind.TEXT), None):
        raise CandlesRefused(f"{other} in the zip is {kinds[other]}; only CSV files are joined. {_ONE_FILE}")
    joined, parts = join(files)
    note = f"joined {len(files)} files of the zip: {files[0][0]} to {files[-1][0]}"
    return Content(Kind.TEXT, joined, "zip", (note,), parts)


def quote_first_line(data: bytes) -> str:
    """The first line that is not blank, shortened, for a message."""
    lines = data[:4096].lstrip(b"\xef\xbb\xbf\r\n\t ").splitlines()
    line = lines[0].decode(errors="replace").strip() if lines else ""
    shown = "".join(letter if letter.isprintable() else " " for letter in line[:_QUOTED_LETTERS])
    return f"{shown!r}{' …' if len(line) > _QUOTED_LETTERS else ''}"


def _identify(data: bytes) -> Kind:
    if not data:
        raise CandlesRefused("the packed file is empty")
    if data[:4] == b"PAR1":
        return Kind.PARQUET
    if data[:6] == b"ARROW1":
        return Kind.ARROW_FILE
    if data[:4] == b"\xff\xff\xff\xff":
        return Kind.ARROW_STREAM
    if (other := find_other_kind(data)) is not None:
        raise CandlesRefused(f"this is {other[0]}; {other[1]}")
    if data[:2] in (b"\x1f\x8b", b"PK"):
        raise CandlesRefused("an archive inside an archive; unpack one of them")
    start = data[:1024].lstrip(b"\xef\xbb\xbf\r\n\t ")
    return Kind.JSON if start[:1] in (b"[", b"{") else Kind.TEXT


def find_other_kind(data: bytes) -> tuple[str, str] | None:
    """What a file is, by its first bytes, and how it becomes one of candles; None if it may be one.

    Text is quoted. Files of models are named by the same table, with other advice.
    """
    for magic, (name, advice) in _NAMED.items():
        if data.startswith(magic):
            return name, advice
    if data[:1] == b"\x80" and data[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "a Python pickle, which is never read", "write CSV or Parquet"
    if data[257:262] == b"ustar":
        return "a tar archive", UNPACK
    start = data[:1024].lstrip(b"\xef\xbb\xbf\r\n\t ")
    if start.startswith(b"version https://git-lfs.github.com/spec/"):
        name, advice = "a git-lfs pointer, not the file itself", FETCH_LFS
    elif start.lower().startswith(_HTML):
        name, advice = "an HTML page, probably an error page", FETCH
    elif start.startswith(b"<?xml") or (start.startswith(b"<") and b"</" in start):
        name, advice = "XML", _EXPORT
    else:
        return None
    return name, f"{advice}. It begins with {quote_first_line(data)}"


def _unpack_gzip(data: bytes) -> bytes:
    """All members of a gzip file. Raises CandlesRefused as soon as they unpack to more than MAX_TEXT_BYTES."""
    parts: list[bytes] = []
    member, members, room = zlib.decompressobj(wbits=31), 1, MAX_TEXT_BYTES
    try:
        for start in range(0, len(data), _CHUNK_BYTES):
            chunk = data[start : start + _CHUNK_BYTES]
            while chunk:
                if member.eof:
                    chunk = chunk.lstrip(b"\0")  # padding between and after members
                    if not chunk:
                        break
                    member, members = zlib.decompressobj(wbits=31), members + 1
                parts.append(member.decompress(chunk, room + 1))
                room -= len(parts[-1])
                chunk = member.unused_data
                if room < 0:
                    raise CandlesRefused(f"unpacks to more than {MAX_TEXT_BYTES:,} bytes; split it")
                if members > MAX_GZIP_MEMBERS:
                    raise CandlesRefused(f"more than {MAX_GZIP_MEMBERS:,} gzip members; compress it as one")
    except zlib.error as error:
        raise CandlesRefused(f"damaged gzip data ({error}); fetch the file again") from error
    if not member.eof:
        raise CandlesRefused("the gzip data ends too early: the file was cut off; fetch it again")
    return b"".join(parts)


def _unpack_zip(data: bytes) -> list[tuple[str, bytes]]:
    """The names and bytes of the files in a zip: one, or those of one market in the order of their dates."""
    unpacked, room = list[tuple[str, bytes]](), MAX_TEXT_BYTES
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            if len(members) > MAX_ZIP_MEMBERS:
                raise CandlesRefused(f"a zip of {len(members):,} files; pack one file of candles")
            for member in _choose_members(members):
                if member.flag_bits & 1:
                    raise CandlesRefused("a zip with a password; pack it without one")
                with archive.open(member) as stream:
                    unpacked.append((_printable(member.filename), stream.read(room + 1)))
                room -= len(unpacked[-1][1])
                if room < 0:
                    raise CandlesRefused(f"unpacks to more than {MAX_TEXT_BYTES:,} bytes; split it")
    except CandlesRefused:
        raise
    except (
        zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, OSError, EOFError,
        NotImplementedError, RuntimeError, IndexError, ValueError, OverflowError,
    ) as error:  # fmt: skip
        raise CandlesRefused(
            f"a damaged zip ({' '.join(str(error).split())[:80]}); fetch the file again"
        ) from error
    return unpacked


def _choose_members(members: list[zipfile.ZipInfo]) -> list[zipfile.ZipInfo]:
    """The one file, or several whose names differ by their dates only, in that order. Raises CandlesRefused."""
    names = [member.filename for member in members]
    for mark, what in _ZIP_CONTENTS:
        if any(
            name == mark or name.endswith((f"/{mark}", mark if mark.startswith(".") else "/" + mark))
            for name in names
        ):
            raise CandlesRefused(f"this is {what}")
    files = [
        m for m in members if not m.is_dir() and not _is_of_desktop(m.filename) and not _is_checksum(m, names)
    ]
    if not files:
        raise CandlesRefused("a zip without a file in it")
    if len(files) == 1:
        return files
    by_name = {file.filename: file for file in files}
    ordered = order_by_date(list(by_name)) if len(by_name) == len(files) else []
    if not ordered:
        listed = ", ".join(_printable(file.filename) for file in files[:5])
        more = f" and {len(files) - 5} more" if len(files) > 5 else ""
        raise CandlesRefused(
            f"a zip with {len(files)} files: {listed}{more}. CSV files are joined where their names differ by their dates"
            f" only, as BTCUSDT-1h-2025-01.csv. {_ONE_FILE}"
        )
    return [by_name[name] for name in ordered]


def _is_of_desktop(name: str) -> bool:
    """What macOS and Windows leave in folders."""
    return name.startswith("__MACOSX/") or name.rpartition("/")[2] in (
        ".DS_Store",
        "Thumbs.db",
        "desktop.ini",
    )


def _is_checksum(member: zipfile.ZipInfo, names: list[str]) -> bool:
    """Binance publishes one beside each file."""
    name, _, suffix = member.filename.rpartition(".")
    return suffix == "CHECKSUM" and name in names


def _printable(name: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in name)[:80]
