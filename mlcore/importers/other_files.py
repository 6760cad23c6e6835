"""Names files that hold no model for what they are, by their first bytes, and says what to do."""

from mlcore.data.containers import FETCH, FETCH_LFS, UNPACK, find_other_kind, quote_first_line
from mlcore.errors import ImportRefused

_SAVE = "save a state dict with torch.save, or export an ONNX file"
_GZIP = b"\x1f\x8b"
_BINARY = {b"PAR1": "a Parquet file", b"GGUF": "a GGUF file of a language model"}
_TEXT = {b"{": "JSON", b"[": "JSON", b"tree\n": "a LightGBM model as text"}


def refuse_other_file(data: bytes) -> None:
    """Raises ImportRefused for a file of a known kind that is no model. An ONNX file has no such first bytes."""
    if (other := find_other_kind(data)) is not None:
        name, advice = other
        raise ImportRefused(f"it is {name}; {_advise(advice)}")
    if data.startswith(_GZIP):
        raise ImportRefused("it is gzip data; unpack it")
    if data[8:10] == b'{"' and int.from_bytes(data[:8], "little") < len(data):
        raise ImportRefused(f"it is a safetensors file; {_SAVE}")
    for magic, name in _BINARY.items():
        if data.startswith(magic):
            raise ImportRefused(f"it is {name}; {_SAVE}")
    start = data[:256].lstrip(b"\xef\xbb\xbf\r\n\t ")
    for beginning, name in _TEXT.items():
        if start.startswith(beginning):
            raise ImportRefused(f"it is {name}; {_SAVE}. It begins with {quote_first_line(data)}")


def _advise(advice: str) -> str:
    """For a model, what the table advises for candles."""
    if advice == UNPACK:
        return "unpack it"
    return advice if advice.startswith((FETCH, FETCH_LFS)) else _SAVE
