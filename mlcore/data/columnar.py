"""Reads Parquet and Arrow (feather, IPC files and streams), with or without an index of pandas."""

import io
from collections.abc import Callable, Mapping

import polars as pl

from mlcore.data.columns import MAX_FIELD_BYTES, MAX_ROWS, SYMBOL, RawTable, Selection, select_named
from mlcore.data.containers import Kind
from mlcore.errors import CandlesRefused

_SAMPLE_ROWS = 20


def read_columnar(kind: Kind, data: bytes) -> RawTable:
    """Raises CandlesRefused, with the row if one row is at fault."""
    read = {
        Kind.PARQUET: _read_parquet,
        Kind.ARROW_FILE: _read_arrow_file,
        Kind.ARROW_STREAM: _read_arrow_stream,
    }[kind]
    try:
        frame, selection = read(data)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise CandlesRefused(f"damaged {kind} data; export or fetch the file again") from error
    return _build_table(frame, selection)


def select_columns(table: pl.DataFrame) -> RawTable:
    """The columns of a table in memory. Raises CandlesRefused, with the row if one row is at fault."""
    frame, selection = _read_lazily(table.schema, table.lazy)
    return _build_table(frame, selection)


def _build_table(frame: pl.DataFrame, selection: Selection) -> RawTable:
    return RawTable(
        frame,
        selection.layout,
        selection.notes,
        has_closing_times=selection.has_closing_times,
        zone=selection.zone,
    )


def _read_parquet(data: bytes) -> tuple[pl.DataFrame, Selection]:
    return _read_lazily(pl.read_parquet_schema(io.BytesIO(data)), lambda: pl.scan_parquet(io.BytesIO(data)))


def _read_arrow_file(data: bytes) -> tuple[pl.DataFrame, Selection]:
    return _read_lazily(pl.read_ipc_schema(io.BytesIO(data)), lambda: pl.scan_ipc(io.BytesIO(data)))


def _read_arrow_stream(data: bytes) -> tuple[pl.DataFrame, Selection]:
    """A stream has no table of contents, so all of it is read."""
    frame = pl.read_ipc_stream(io.BytesIO(data))
    return _read_lazily(frame.schema, frame.lazy)


def _read_lazily(
    schema: Mapping[str, pl.DataType], scan: Callable[[], pl.LazyFrame]
) -> tuple[pl.DataFrame, Selection]:
    """Only the selected columns, after their sizes are known."""
    schema, scan = _spell_out(schema, scan)
    names = list(schema)
    times = [at for at, dtype in enumerate(schema.values()) if isinstance(dtype, pl.Datetime | pl.Date)]
    # Times are not looked at: Python has no datetime for what some files hold.
    sampled = [at for at, dtype in enumerate(schema.values()) if dtype == pl.String or dtype.is_numeric()]
    select_named(names, [], times)  # refuses what has no candles before any value is read
    head = scan().select(names[at] for at in sampled).head(_SAMPLE_ROWS).collect()
    rows = scan().select(pl.len()).collect().item()
    middle = (
        scan().select(names[at] for at in sampled).slice(max(_SAMPLE_ROWS, rows // 2), _SAMPLE_ROWS).collect()
    )
    first, more = ([dict(zip(sampled, row, strict=True)) for row in part.rows()] for part in (head, middle))
    selection = select_named(names, first, times, more)
    chosen = {column: names[at] for column, at in selection.positions.items()}
    if schema.get(chosen.get(SYMBOL, "")) not in (None, pl.String):
        del chosen[SYMBOL]
    for name in chosen.values():
        dtype = schema[name]
        if not (dtype.is_numeric() or dtype.is_temporal() or dtype in (pl.String, pl.Boolean)):
            raise CandlesRefused(f"{name} holds {str(dtype)[:40]}, not numbers or times")
    if rows > MAX_ROWS:
        raise CandlesRefused(f"more than {MAX_ROWS:,} rows; split the file")
    _refuse_long_texts(scan(), [name for name in chosen.values() if schema[name] == pl.String])
    frame = scan().select(pl.col(name).alias(column) for column, name in chosen.items()).collect()
    return frame, selection


def _spell_out(
    schema: Mapping[str, pl.DataType], scan: Callable[[], pl.LazyFrame]
) -> tuple[Mapping[str, pl.DataType], Callable[[], pl.LazyFrame]]:
    """With text where a file has a dictionary of texts and numbers into it."""
    coded = [name for name, dtype in schema.items() if isinstance(dtype, pl.Categorical | pl.Enum)]
    if not coded:
        return schema, scan
    return {**schema, **dict.fromkeys(coded, pl.String())}, lambda: scan().with_columns(
        pl.col(coded).cast(pl.String)
    )


def _refuse_long_texts(table: pl.LazyFrame, names: list[str]) -> None:
    """Before anything is kept of it: text that repeats is a thousandth of its length in a file."""
    if not names:
        return
    sizes = table.select(pl.col(names).str.len_bytes().max()).collect(engine="streaming").row(0, named=True)
    for name, size in sizes.items():
        if size is not None and size > MAX_FIELD_BYTES:
            raise CandlesRefused(
                f"{name} has a text of {size:,} bytes; a field has at most {MAX_FIELD_BYTES:,}"
            )
