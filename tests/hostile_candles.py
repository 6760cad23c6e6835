"""Candle files that harm their reader: small to send, and costly or fatal to read."""

import gzip
import io
import zipfile

import polars as pl

HEADER = b"timestamp,open,high,low,close,volume\n"
ROW = b"1700000000000,10,11,9,10,5\n"
NESTED_GROUPS = 2000
EXPANDED_ROWS = 3_900_000


def nested_parquet() -> bytes:
    """16 KB: a column in a group in a group, 2,000 deep. The reader's recursion overflows the stack of its process."""
    # Thrift's compact protocol: a required group of one child is repetition, name and number of children.
    group = b"\x35\x00\x18\x01a\x15\x02\x00"
    column = b"\x15\x0a\x25\x00\x18\x01a\x00"  # a double
    elements = NESTED_GROUPS + 1
    count = bytes([0x80 | elements & 0x7F, elements >> 7])
    footer = b"\x15\x02\x19\xfc" + count + group * NESTED_GROUPS + column + b"\x16\x00\x19\x0c\x00"
    return b"PAR1" + footer + len(footer).to_bytes(4, "little") + b"PAR1"


def expanding_parquet() -> bytes:
    """100 KB: 3,900,000 rows with a text of 1,000 letters."""
    numbers = [
        pl.repeat(1.0, EXPANDED_ROWS).alias(name) for name in ("open", "high", "low", "close", "volume")
    ]
    frame = pl.select(pl.repeat("1" * 1000, EXPANDED_ROWS).alias("timestamp"), *numbers)
    out = io.BytesIO()
    frame.write_parquet(out, compression_level=9)
    return out.getvalue()


def endless_gzip() -> bytes:
    """A gzip file of empty members: nothing comes out, and each must be opened."""
    return gzip.compress(HEADER + ROW) + gzip.compress(b"", mtime=0) * 150_000


def long_field() -> bytes:
    """A field of 200 KB in a row that has one too many, so that the row is looked for."""
    return HEADER + ROW + b"1" * 200_000 + b",1,1,1,1,1,1\n"


def wide_header() -> bytes:
    """A header of 3 MB: 600,000 names."""
    return b",".join(b"c%d" % number for number in range(600_000)) + b"\n" + ROW


def expanding_zip() -> bytes:
    """400 KB: a file of 400 MiB."""
    out = io.BytesIO()
    with (
        zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("a.csv", "w", force_zip64=True) as file,
    ):
        for _ in range(400):
            file.write(b"0" * 2**20)
    return out.getvalue()


def nested_json() -> bytes:
    """1 MB: a row, and a list in a list, 500,000 deep."""
    return b"[[1700000000000,10,11,9,10,5]," + b"[" * 500_000 + b"]" * 500_000 + b"]"


FILES = {
    "a column nested 2,000 deep": ("a.parquet", nested_parquet, "killed by SIG"),
    "100 KB that expand to 3.9 GB": ("a.parquet", expanding_parquet, "timestamp has a text of 1,000 bytes"),
    "gzip members without end": ("a.csv.gz", endless_gzip, "gzip members; compress it as one"),
    "400 KB of zip that expand to 400 MB": ("a.zip", expanding_zip, "unpacks to more than 402,653,184 bytes"),
    "JSON nested 500,000 deep": ("a.json", nested_json, "more than plain numbers and texts"),
    "a field of 200 KB": ("a.csv", long_field, "a field is too long"),
    "a header of 3 MB": ("a.csv", wide_header, "a header has at most 4,096"),
}
"""By what they are: the file's name, its bytes, and what its refusal says."""
