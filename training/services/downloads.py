"""A dataset's candles as a file. Importing the file again gives the same digest."""

import tempfile
from dataclasses import dataclass
from typing import IO

import polars as pl

from common.errors import NotFound
from training import artifact_store
from training.models import Dataset

CONTENT_TYPES = {"csv": "text/csv", "parquet": "application/vnd.apache.parquet"}
"""The forms of a download, and the content type of each."""


@dataclass(frozen=True)
class Download:
    """An open temporary file, which vanishes when it is closed."""

    stream: IO[bytes]
    size: int
    name: str
    content_type: str


def open_download(dataset: Dataset, form: str) -> Download:
    """The candles as `csv` or `parquet`. Raises NotFound for another form, and FileLost for a damaged or lost file."""
    if form not in CONTENT_TYPES:
        raise NotFound(f"Candles are not written as {form[:20]!r}; choose csv or parquet.")
    frame = artifact_store.read_candles(dataset)
    stream = tempfile.TemporaryFile()  # noqa: SIM115 - the response closes it
    try:
        if form == "csv":
            _write_times(frame).write_csv(stream)
        else:
            frame.write_parquet(stream)
        size = stream.tell()
        stream.seek(0)
    except BaseException:
        stream.close()
        raise
    return Download(stream, size, f"{dataset.coin}-dataset-{dataset.pk}.{form}", CONTENT_TYPES[form])


def _write_times(frame: pl.DataFrame) -> pl.DataFrame:
    is_whole = (frame["timestamp"].dt.epoch("ms") % 1000 == 0).all()
    return frame.with_columns(
        pl.col("timestamp").dt.to_string("%Y-%m-%dT%H:%M:%SZ" if is_whole else "%Y-%m-%dT%H:%M:%S%.3fZ")
    )
