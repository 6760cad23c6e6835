"""Names files that hold no model for what they are, by their first bytes, and says what to do."""

from mlcore.data.containers import quote_first_line
from mlcore.errors import ImportRefused

_SAVE = "save a state dict with torch.save, or export an ONNX file"
_NAMED = {
    b"\x93NUMPY": f"a NumPy array (npy); {_SAVE}",
    b"\x89HDF": f"an HDF5 file, as Keras writes it; {_SAVE}",
    b"\x1f\x8b": "gzip data; unpack it",
    b"BZh": "bzip2 data; unpack it",
    b"\xfd7zXZ": "xz data; unpack it",
    b"\x28\xb5\x2f\xfd": "zstd data; unpack it",
    b"PAR1": "a Parquet file; candles are imported elsewhere",
    b"%PDF": "a PDF; import the model's own file",
    b"\x7fELF": "a program; import the model's own file",
    b"GGUF": f"a GGUF file of a language model; {_SAVE}",
}
_TEXTS = {
    b"version https://git-lfs.github.com/spec/": "a git-lfs pointer, not the file itself; fetch it with git lfs pull",
    b"<!doctype html": "an HTML page, probably an error page; fetch the file itself",
    b"<html": "an HTML page, probably an error page; fetch the file itself",
    b"{": f"JSON; {_SAVE}",
    b"[": f"JSON; {_SAVE}",
    b"tree\n": f"a LightGBM model as text; {_SAVE}",
}


def refuse_other_file(data: bytes) -> None:
    """Raises ImportRefused for a file of a known kind that is no model. An ONNX file has no such first bytes."""
    for magic, what in _NAMED.items():
        if data.startswith(magic):
            raise ImportRefused(f"it is {what}")
    if data[:1] == b"\x80" and data[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        raise ImportRefused(
            "it is a Python pickle, as joblib or torch before 1.6 writes it, and is never run; save it again with"
            " torch.save"
        )
    if data[8:10] == b'{"' and int.from_bytes(data[:8], "little") < len(data):
        raise ImportRefused(f"it is a safetensors file; load it with safetensors, and {_SAVE}")
    start = data[:256].lstrip(b"\xef\xbb\xbf\r\n\t ").lower()
    for beginning, what in _TEXTS.items():
        if start.startswith(beginning):
            raise ImportRefused(f"it is {what}. It begins with {quote_first_line(data)}")
