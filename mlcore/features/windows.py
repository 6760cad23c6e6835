"""The input *window*: the last L bars, relative to the last close. A graph computes features of its own from them.

Of bar t and age k = L − 1 … 0: ln(open[t − k] / close[t]), the same of high, low and close, and volume[t − k] over the
mean volume of the L bars (0 if there was none). So a window holds no price level, and no bar after t can be named.

Every value is computed from the L bars alone, element by element: one row has the same bits as in a batch.
"""

import numpy as np

from mlcore import parallel
from mlcore.errors import NotEnoughBars
from mlcore.features import rolling

Array = np.ndarray

COLUMNS = ("open", "high", "low", "close", "volume")
MIN_BARS, MAX_BARS = 16, 2048

MAX_NUMBERS = 2**27
"""Of windows that are held at once: half a GiB of float32."""
_CHUNK_NUMBERS = 2**18


class Windows:
    """The windows of some bars, float32 [n, L, 5], each computed when it is taken: those of a history may not fit
    into memory."""

    def __init__(self, columns: list[Array], bars: Array, length: int) -> None:
        self._columns, self._bars, self.length = columns, bars, length
        self.shape = (len(bars), length, len(COLUMNS))

    def __len__(self) -> int:
        return len(self._bars)

    def __getitem__(self, rows: slice | Array) -> Array:
        """Raises NotEnoughBars for more than MAX_NUMBERS at once."""
        return compute_windows(self._columns, self._bars[rows], self.length)

    def tobytes(self) -> bytes:
        """What determines every window."""
        return b"".join(values.tobytes() for values in (*self._columns, self._bars))


def compute_windows(columns: list[Array], bars: Array, length: int) -> Array:
    """float32 [n, length, 5]: of each of the bars, which have at least `length` − 1 bars before them.

    `columns` are open, high, low, close and volume. Raises NotEnoughBars for more than MAX_NUMBERS.
    """
    if (numbers := len(bars) * length * len(COLUMNS)) > MAX_NUMBERS:
        fitting = MAX_NUMBERS // (len(bars) * len(COLUMNS))
        raise NotEnoughBars(
            f"{len(bars):,} windows of {length:,} bars are {numbers:,} numbers; at most {MAX_NUMBERS:,} are held at once:"
            f" choose a window of at most {fitting:,} bars, or fewer candles"
        )
    out = np.empty((len(bars), length, len(COLUMNS)), np.float32)
    ages = np.arange(-length + 1, 1)

    def fill(rows: slice) -> None:
        where = bars[rows, np.newaxis] + ages
        last = np.log(columns[3][bars[rows]])[:, np.newaxis]
        for column, values in enumerate(columns[:4]):
            out[rows, :, column] = np.log(values[where]) - last
        volume = columns[4][where]
        usual = rolling.compute_sums(volume, [length], 1)[length] / length
        out[rows, :, 4] = np.divide(volume, usual, out=np.zeros_like(volume), where=usual != 0)

    with np.errstate(over="ignore"):
        parallel.thread_map(fill, parallel.chunks(len(bars), max(1, _CHUNK_NUMBERS // length)))
    return out
