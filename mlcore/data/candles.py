"""Candles: one row per bar, `timestamp` is its opening time in UTC. A dataset is named by the digest of its candles."""

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl

from mlcore.data.columns import COLUMNS, NUMBERS
from mlcore.data.readers import read_file
from mlcore.data.validation import infer_interval_ms, validate_candles
from mlcore.errors import CandlesRefused

_MAGIC = b"crpbot candles 1\n"
_HEADER = struct.Struct("<17sQ")  # magic, rows


@dataclass(frozen=True)
class Description:
    rows: int
    first_at: datetime
    last_at: datetime
    interval_seconds: int
    gaps: int
    missing_bars: int
    zero_volume_bars: int


def read(path: Path) -> pl.DataFrame:
    """Valid candles from a file of any format that `readers` knows. Raises CandlesRefused with row and reason."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CandlesRefused(f"cannot be read ({error.strerror})", source=path.name) from error
    return read_bytes(data, path.name)


def read_bytes(data: bytes, name: str) -> pl.DataFrame:
    """The same from bytes. `name` is for the messages."""
    return read_file(data, name).frame


def describe(frame: pl.DataFrame) -> Description:
    """A gap is a run of missing bars."""
    interval = infer_interval_ms(frame)
    steps = np.diff(_milliseconds(frame)) // interval
    return Description(
        rows=frame.height,
        first_at=frame["timestamp"][0],
        last_at=frame["timestamp"][-1],
        interval_seconds=interval // 1000,
        gaps=int(np.count_nonzero(steps > 1)),
        missing_bars=int((steps - 1).sum()),
        zero_volume_bars=int((frame["volume"] == 0).sum()),
    )


def encode_canonical(frame: pl.DataFrame) -> bytes:
    """The same content gives the same bytes: header, int64 epoch milliseconds, then five columns of float64."""
    return b"".join(_encode_parts(frame))


def _encode_parts(frame: pl.DataFrame) -> Iterator[bytes | memoryview]:
    yield _HEADER.pack(_MAGIC, frame.height)
    yield _milliseconds(frame).astype("<i8").data
    for name in NUMBERS:
        # + 0.0 turns -0.0 into 0.0: equal volumes must not give two digests.
        yield (frame[name].to_numpy() + 0.0).astype("<f8", copy=False).data


def decode_canonical(data: bytes) -> pl.DataFrame:
    """The frame that `encode_canonical` was given, validated again. Raises CandlesRefused."""
    source = "canonical candles"
    if len(data) < _HEADER.size or not data.startswith(_MAGIC):
        raise CandlesRefused("not in canonical form, version 1", source=source)
    rows = _HEADER.unpack_from(data)[1]
    if len(data) != _HEADER.size + rows * 8 * len(COLUMNS):
        raise CandlesRefused(
            f"{len(data):,} bytes do not hold {rows:,} rows: cut off or damaged", source=source
        )
    times = np.frombuffer(data, "<i8", rows, _HEADER.size).astype(np.int64)
    numbers = np.frombuffer(data, "<f8", rows * len(NUMBERS), _HEADER.size + 8 * rows).astype(np.float64)
    columns = dict(zip(NUMBERS, numbers.reshape(len(NUMBERS), rows), strict=True))
    stamps = pl.Series(times).cast(pl.Datetime("ms")).dt.replace_time_zone("UTC")
    return validate_candles(pl.DataFrame({"timestamp": stamps, **columns}), source)


def compute_digest(frame: pl.DataFrame) -> str:
    """`sha256:…` of the canonical bytes: the same for every file format."""
    sha256 = hashlib.sha256()
    for part in _encode_parts(frame):
        sha256.update(part)
    return f"sha256:{sha256.hexdigest()}"


def _milliseconds(frame: pl.DataFrame) -> np.ndarray:
    return frame["timestamp"].dt.epoch("ms").to_numpy()
