"""Mutations of valid input: of bytes, of JSON values, and of what is inside a gzip, an archive or a signed envelope.

Every function takes a `random.Random`, so that a seed and a number name one input for good.
"""

import gzip
import io
import json
import zipfile
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

Make = Callable[[Random], bytes]
"""Makes one input."""

MAX_INPUT_BYTES = 512 * 1024
_WORDS = (
    b"", b"\x00", b"\xff" * 8, b"-1", b"0", b"1e999", b"nan", b"inf", b"NaN", b"Infinity", b"9" * 400, b'"',
    b",", b"\n", b"\r", b"\r\n\r\n", b"{", b"[" * 2000, b"]", b"\xed\xa0\x80", b"\xef\xbb\xbf",
    b"\xf0\x9f\x92\xa9", b"2024-01-01T00:00:00Z", b"9999-12-31T23:59:59Z", b"0001-01-01", b"1704067200",
    b"9999999999999", b"../../etc/passwd", b"PAR1", b"PK\x03\x04", b"\x1f\x8b\x08", b"data:",
    b"event: snapshot\n", b"\n\n",
)  # fmt: skip
_PICKLE_OPCODES = (
    b"(.0123FIJKLMNPQRSTUVXabcdeghijlopqrstu]})\x80\x81\x82\x83\x84\x85\x86\x87\x88\x89\x8a\x8b\x8c\x93\x94"
)
_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, -(2**63), 10**400, 0.5, 1e308, -0.0, float("nan"), float("inf"),
    "", "x", "\0", "\ud800", "a" * 5000, "2024-01-01T00:00:00Z", "sha256:" + "0" * 64, [], {}, [None], [[]], {"": None},
    [0] * 300, {"name": {}}, "../x", "model.onnx",
)  # fmt: skip


def mutate_bytes(rng: Random, data: bytes, others: Sequence[bytes] = ()) -> bytes:
    """One to six changes at random places."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        _change(rng, changed, others)
    return bytes(changed[:MAX_INPUT_BYTES])


def _change(rng: Random, data: bytearray, others: Sequence[bytes]) -> None:
    at = rng.randrange(len(data) + 1)
    until = min(len(data), at + rng.choice((1, 1, 2, 4, 8, 64, 1024)))
    kind = rng.randrange(9)
    if kind == 0 and at < len(data):
        data[at] ^= 1 << rng.randrange(8)
    elif kind == 1 and at < len(data):
        data[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    elif kind == 2:
        del data[at:until]
    elif kind == 3:
        data[at:at] = data[at:until] * rng.choice((1, 2, 50))
    elif kind == 4:
        data[at:at] = rng.choice(_WORDS)
    elif kind == 5:
        data[at:until] = rng.choice(_WORDS)
    elif kind == 6:
        del data[at if rng.random() < 0.5 else max(0, len(data) - rng.randrange(1, 64)) :]
    elif kind == 7 and others:
        other = rng.choice(others)
        start = rng.randrange(len(other) + 1)
        data[at:until] = other[start : start + rng.choice((8, 64, 512))]
    else:
        size = rng.choice((1, 2, 4, 8))
        number = rng.choice(
            (0, 1, 2**7, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1, rng.getrandbits(64))
        )
        data[at : at + size] = (number % 2 ** (8 * size)).to_bytes(size, rng.choice(("little", "big")))


def mutate_json(rng: Random, data: bytes) -> bytes:
    """One or two values replaced, removed, renamed or repeated, anywhere in the document; else a change of bytes."""
    if rng.random() < 0.2:
        return mutate_bytes(rng, data)
    document = json.loads(data)
    for _ in range(rng.choice((1, 1, 2))):
        document = _mutate_value(rng, document)
    text = json.dumps(document, sort_keys=rng.random() < 0.8, separators=(",", ":")).encode()
    if rng.random() < 0.03:
        depth = rng.choice((500, 5_000, 100_000))
        return b'{"a":' * depth + text + b"}" * depth
    return text


def _mutate_value(rng: Random, node: Any) -> Any:
    """Walks down at random, and changes the value where the walk ends."""
    if isinstance(node, dict) and node and rng.random() < 0.85:
        name = rng.choice(list(node))
        kind = rng.random()
        if kind < 0.1:
            return {key: value for key, value in node.items() if key != name}
        if kind < 0.2:
            return {
                (rng.choice(("", "x", "constructor", key * 2)) if key == name else key): value
                for key, value in node.items()
            }
        if kind < 0.25:
            return {**node, rng.choice(("x", "format", name + "2")): rng.choice(_VALUES)}
        return {**node, name: _mutate_value(rng, node[name])}
    if isinstance(node, list) and node and rng.random() < 0.8:
        index = rng.randrange(len(node))
        kind = rng.random()
        if kind < 0.15:
            return node[:index] + node[index + 1 :]
        if kind < 0.3:
            return node + [node[index]] * rng.choice((1, 200))
        return [*node[:index], _mutate_value(rng, node[index]), *node[index + 1 :]]
    return rng.choice(_VALUES)


def from_bytes(seeds: Sequence[bytes]) -> Make:
    return lambda rng: mutate_bytes(rng, rng.choice(seeds), seeds)


def from_json(seeds: Sequence[bytes]) -> Make:
    return lambda rng: mutate_json(rng, rng.choice(seeds))


def in_gzip(make: Make) -> Make:
    """Half of the inputs are changed inside, the others outside."""

    def wrapped(rng: Random) -> bytes:
        if rng.random() < 0.5:
            return gzip.compress(make(rng), compresslevel=1, mtime=0)
        return mutate_bytes(rng, gzip.compress(make(rng), compresslevel=1, mtime=0))

    return wrapped


def in_zip(make: Make) -> Make:
    """Half of the inputs are changed inside, the others outside."""

    def wrapped(rng: Random) -> bytes:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(zipfile.ZipInfo("candles"), make(rng))
        return out.getvalue() if rng.random() < 0.5 else mutate_bytes(rng, out.getvalue())

    return wrapped


def in_archive(seeds: Sequence[bytes]) -> Make:
    """Entries of a zip are changed one by one, the pickle most of all; the archive itself stays sound in most inputs."""

    def changed(rng: Random) -> bytes:
        data = rng.choice(seeds)
        if rng.random() < 0.2:
            return mutate_bytes(rng, data, seeds)
        out = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
            names = old.namelist()
            pickles = [name for name in names if name.endswith("data.pkl")]
            chosen = rng.choice(pickles if pickles and rng.random() < 0.8 else names)
            for name in names:
                content = old.read(name)
                new.writestr(
                    zipfile.ZipInfo(name), _mutate_pickle(rng, content) if name == chosen else content
                )
        return out.getvalue()

    return changed


def _mutate_pickle(rng: Random, data: bytes) -> bytes:
    if rng.random() < 0.5:
        return mutate_bytes(rng, data)
    changed = bytearray(data)
    for _ in range(rng.choice((1, 2, 5))):
        at = rng.randrange(len(changed) + 1)
        opcodes = bytes(rng.choice(_PICKLE_OPCODES) for _ in range(rng.choice((1, 3, 20))))
        changed[at : at + rng.choice((0, len(opcodes)))] = opcodes
    return bytes(changed)
