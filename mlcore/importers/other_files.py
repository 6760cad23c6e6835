"""Names files that hold no model for what they are, by their first bytes, and says what to do."""

from mlcore.data.containers import FETCH, FETCH_LFS, UNPACK, find_other_kind, quote_first_line
from mlcore.errors import ImportRefused

_SAVE = "save a state dict with torch.save, or export an ONNX file"
_GZIP = b"\x1f\x8b"
_BINARY = {
    b"PAR1": "a Parquet file",
    b"ARROW1": "an Arrow file (feather)",
    b"GGUF": "a GGUF file of a language model",
    b"CBM1": "a CatBoost model",
    b"{L": "an XGBoost model (ubj)",
    b"MZ": "a program of Windows",
}
_TEXT = {b"{\\rtf": "an RTF document", b"{": "JSON", b"[": "JSON", b"tree\n": "a LightGBM model as text"}
_TEXT_BYTES = 4096
"""So many letters are no ONNX file, whose fields begin with control characters."""


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
    if data[4:8] == b"TFL3":
        raise ImportRefused(f"it is a TensorFlow Lite model; {_SAVE}")
    start = data[:256].lstrip(b"\xef\xbb\xbf\r\n\t ")
    for beginning, name in _TEXT.items():
        if start.startswith(beginning):
            raise ImportRefused(f"it is {name}; {_SAVE}. It begins with {quote_first_line(data)}")
    if _is_text(data[:_TEXT_BYTES]):
        raise ImportRefused(
            f"it is text, neither a checkpoint nor an ONNX file; {_SAVE}. It begins with {quote_first_line(data)}"
        )


def _is_text(start: bytes) -> bool:
    try:
        letters = start.decode()
    except UnicodeDecodeError:
        return False
    return bool(letters.strip()) and all(
        letter.isprintable() or letter in "\r\n\t\ufeff" for letter in letters
    )


def _advise(advice: str) -> str:
    """For a model, what the table advises for candles."""
    if advice == UNPACK:
        return "unpack it"
    return advice if advice.startswith((FETCH, FETCH_LFS)) else _SAVE
