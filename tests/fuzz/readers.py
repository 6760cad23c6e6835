"""Every reader of bytes from outside, with valid input to mutate, and the errors that it documents.

A reader that runs in the sandbox may end its process: the service then refuses the file. Any other may only refuse.
"""

import hashlib
import io
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import polars as pl
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.dsse import Envelope
from securesystemslib.signer import CryptoSigner

from mlcore.data import candles
from mlcore.data.import_report import ImportReport
from mlcore.data.readers import read_file
from mlcore.data.simulate import simulate
from mlcore.errors import CandlesRefused
from tests.fuzz import mutations
from tests.fuzz.mutations import Make
from tests.mlcore.candle_formats import FORMATS

Read = Callable[[bytes], object]


@dataclass(frozen=True)
class Target:
    """A reader that is ready: how its inputs are made, how one is read, and what it may raise."""

    make: Make
    read: Read
    refusals: tuple[type[Exception], ...]


@dataclass(frozen=True)
class Reader:
    name: str
    prepare: Callable[[], Target]
    is_sandboxed: bool
    quick_inputs: int
    """How many inputs the tests try: two to four seconds' worth."""


def _prepare_candle_texts() -> Target:
    frame = simulate("BTC", 300, 1.0, 1).head(60)
    seconds = frame.with_columns(pl.col("timestamp").dt.epoch("s"))
    seeds = [
        frame.head(5).write_csv(quote_style="always").encode(),
        seconds.write_csv(line_terminator="\r\n").encode(),
        *(
            data
            for data in _candle_formats()
            if data[:1] not in b"[{\xff" and data.isascii() and b"\0" not in data
        ),
    ]
    text = mutations.from_bytes(seeds)
    makes = (text, text, mutations.in_gzip(text), mutations.in_zip(text))
    return Target(lambda rng: rng.choice(makes)(rng), _read_candles, (CandlesRefused,))


def _prepare_candle_json() -> Target:
    seeds = [data for data in _candle_formats() if data[:1] in b"[{"]
    lists = [data for data in seeds if data[:2] in (b"[[", b"[{")]
    makes = (mutations.from_bytes(seeds), mutations.from_json(lists), mutations.from_json(lists))
    return Target(lambda rng: rng.choice(makes)(rng), _read_candles, (CandlesRefused,))


def _prepare_candle_tables() -> Target:
    frame = simulate("BTC", 300, 1.0, 1).head(60)
    seconds = frame.with_columns(pl.col("timestamp").dt.epoch("s"))
    seeds = [
        _to_parquet(frame),
        _to_parquet(seconds, compression="gzip"),
        _to_parquet(frame.head(3), compression="uncompressed", statistics=False),
        _to_parquet(frame.with_columns(pl.col("timestamp").dt.to_string(), pl.col("close").cast(pl.String))),
        _to_parquet(frame.with_columns(pl.col("timestamp").dt.cast_time_unit("ns")), row_group_size=7),
        *(data for data in _candle_formats() if data[:4] in (b"PAR1", b"ARRO", b"\xff\xff\xff\xff")),
    ]
    table = mutations.from_bytes(seeds)
    makes = (table, table, table, mutations.in_zip(table))
    return Target(lambda rng: rng.choice(makes)(rng), _read_candles, (CandlesRefused,))


def _candle_formats() -> list[bytes]:
    """A file as each exchange, program and library writes it."""
    return [make() for make, _ in FORMATS.values()]


def _read_candles(data: bytes) -> None:
    found = read_file(data, "candles")
    assert candles.decode_canonical(candles.encode_canonical(found.frame)).equals(found.frame)
    assert ImportReport.from_document(found.report.document()) == found.report


def _to_parquet(frame: pl.DataFrame, **options: Any) -> bytes:
    out = io.BytesIO()
    frame.write_parquet(out, **options)
    return out.getvalue()


def _prepare_canonical() -> Target:
    seeds = [candles.encode_canonical(simulate("BTC", 300, 1.0, 1).head(rows)) for rows in (2, 50, 300)]

    def make(rng: Random) -> bytes:
        data = mutations.mutate_bytes(rng, rng.choice(seeds), seeds)
        if rng.random() < 0.5:  # as many rows as the header says
            rows = max(0, len(data) - 25) // 48
            data = seeds[0][:17] + rows.to_bytes(8, "little") + data[25 : 25 + 48 * rows]
        return data

    return Target(make, candles.decode_canonical, (CandlesRefused,))


def _prepare_torch() -> Target:
    import torch

    from mlcore.errors import ImportRefused
    from mlcore.importers import torch_file
    from tests import model_files

    state = model_files.network().state_dict()
    scaler = {"mean": torch.zeros(72), "scale": [1.0] * 72}
    seeds = [
        model_files.saved(state),
        model_files.saved(
            {
                "model_state_dict": state,
                "feature_columns": list(model_files.COLUMNS),
                "scaler": scaler,
                "temperature": 1.5,
            }
        ),
        model_files.saved(
            {"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}, "epoch": 3}
        ),
    ]
    return Target(mutations.in_archive(seeds), torch_file.read_checkpoint, (ImportRefused,))


def _onnx_seeds() -> list[bytes]:
    from mlcore.bundle import onnx_graph
    from mlcore.bundle.format import Layout
    from tests import model_files

    state = {name: tensor.numpy() for name, tensor in model_files.network().state_dict().items()}
    weights = {name: array for name, array in state.items() if not name.endswith("num_batches_tracked")}
    return [
        model_files.onnx_file([model_files.LINEAR], model_files.linear_tensors()),
        onnx_graph.build_model(weights, None, Layout.RELU_BEFORE_BN),
    ]


def _prepare_onnx() -> Target:
    from mlcore.errors import ImportRefused
    from mlcore.importers import onnx_file

    return Target(mutations.from_bytes(_onnx_seeds()), onnx_file.read_graph, (ImportRefused,))


def _prepare_graph() -> Target:
    from mlcore.bundle import graph_limits
    from mlcore.errors import BundleRefused

    return Target(mutations.from_bytes(_onnx_seeds()), graph_limits.check_graph, (BundleRefused,))


def _prepare_import() -> Target:
    """From a file to a bundle that answered twice, as the sandbox does it."""
    from mlcore.errors import MlcoreError
    from mlcore.importers import convert

    request = convert.Request("BTC", "v6_enhanced", "raw72", None, True, 3600, "fuzz")

    def read(data: bytes) -> None:
        with tempfile.TemporaryDirectory() as folder:
            convert.import_model(data, request, Path(folder) / "bundle")

    return Target(mutations.from_bytes(_onnx_seeds()[:1]), read, (MlcoreError,))


def _bundle_files() -> dict[str, bytes]:
    """The files of a small bundle, with a scaler."""
    import numpy as np
    import torch

    from mlcore.importers import convert
    from tests import model_files

    held = {
        "model_state_dict": model_files.network().state_dict(),
        "scaler": {"mean": torch.arange(72.0), "scale": (np.arange(72.0) + 1).tolist()},
    }
    request = convert.Request("BTC", "v6_enhanced", "raw72", "relu-before-bn", True, 3600, "fuzz")
    with tempfile.TemporaryDirectory() as folder:
        bundle, _ = convert.import_model(model_files.saved(held), request, Path(folder) / "bundle")
        return {path.name: path.read_bytes() for path in bundle.folder.iterdir()}


def _prepare_manifest() -> Target:
    from mlcore.bundle import format as bundles
    from mlcore.errors import BundleRefused

    folder = Path(tempfile.mkdtemp(prefix="fuzz-manifest-"))
    files = _bundle_files()
    for name, content in files.items():
        (folder / name).write_bytes(content)

    def read(data: bytes) -> None:
        (folder / bundles.MANIFEST_FILE).write_bytes(data)
        bundle = bundles.verify(folder)
        assert bundle.manifest.schema

    return Target(mutations.from_json([files[bundles.MANIFEST_FILE]]), read, (BundleRefused,))


def _prepare_bundle_files() -> Target:
    """Scaler, weights and graph below a sound manifest: the inspection reports what is wrong, and raises nothing."""
    from mlcore.bundle import format as bundles
    from mlcore.evaluation.inspection import Inspection

    folder = Path(tempfile.mkdtemp(prefix="fuzz-bundle-"))
    files = _bundle_files()
    scaler, weights = files[bundles.SCALER_FILE], files[bundles.WEIGHTS_FILE]

    def make(rng: Random) -> bytes:
        """The first byte says which file it is."""
        if rng.random() < 0.5:
            return b"s" + mutations.mutate_json(rng, scaler)
        return b"w" + mutations.mutate_bytes(rng, weights, [scaler])

    def read(data: bytes) -> None:
        for name, content in files.items():
            (folder / name).write_bytes(content)
        (folder / (bundles.SCALER_FILE if data[:1] == b"s" else bundles.WEIGHTS_FILE)).write_bytes(data[1:])
        inspection = Inspection(folder, "sha256:0")
        json.dumps([inspection.inspect_scaler(), inspection.weights])

    return Target(make, read, ())


def _prepare_resumed_fit() -> Target:
    import numpy as np

    from mlcore.errors import ResumeRefused
    from mlcore.fitting import checkpoint

    report = checkpoint.EpochReport(1, 5, 1.1, 1.0, 0.4, 2.5, 1e5, True)
    tensors = {"fc1.weight": np.zeros((4, 3), np.float32), "best.fc1.weight": np.ones((4, 3), np.float32)}
    seed = checkpoint.pack("print", checkpoint.Progress([report], 1), tensors)
    magic = seed.partition(b"\n")[0] + b"\n"
    body = seed[len(magic) + 32 :]

    def make(rng: Random) -> bytes:
        changed = mutations.mutate_bytes(rng, body)
        digest = hashlib.sha256(changed).digest() if rng.random() < 0.9 else bytes(32)
        return magic + digest + changed

    return Target(make, lambda data: checkpoint.unpack(data, "print"), (ResumeRefused,))


def _snapshot_document() -> bytes:
    model = {
        "bundle": "sha256:" + "1" * 64,
        "feature_schema": "raw72",
        "schema_digest": "sha256:" + "2" * 64,
        "classes": ["down", "neutral", "up"],
        "files": {
            name: {"sha256": "3" * 64, "size": 10, "url": f"/files/{name}"}
            for name in ("manifest.json", "model.onnx")
        },
    }
    release = {
        "release": 7,
        "line": "v7_fixed",
        "interval_seconds": 3600,
        "simulated": True,
        "models": {"BTC": model, "ETH": model},
    }
    document = {
        **release,
        "service": "service-under-test",
        "revision": 12,
        "moved_at": "2026-11-22T08:00:00Z",
        "reason": "a reason",
        "issued_at": "2026-11-22T08:01:00+00:00",
        "expires_at": "2026-11-22T08:04:00+00:00",
        "audit_head": {"seq": 40, "hash": "00"},
        "coins": ["BTC", "ETH"],
        "key_version": 1,
        "next": release,
        "fallback": release,
    }
    return json.dumps(document).encode()


def _prepare_envelope() -> Target:
    """Half of the inputs carry a valid signature over a changed document, so that its parser is reached."""
    from crpbot_runtime.errors import EnvelopeRefused, SnapshotRefused
    from crpbot_runtime.protocol.envelope import PAYLOAD_TYPE, parse_unverified, verify_envelope
    from crpbot_runtime.protocol.public_keys import PublicKeys

    signer = CryptoSigner(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
    keys = PublicKeys(signer.public_key.keyval["public"])
    snapshot = _snapshot_document()

    def seal(payload: bytes) -> bytes:
        envelope = Envelope(payload, PAYLOAD_TYPE, {})
        envelope.sign(signer)
        return json.dumps(envelope.to_dict()).encode()

    verify_envelope(seal(snapshot), keys)
    outer = mutations.from_json([seal(snapshot)])

    def read(data: bytes) -> None:
        for parse in (lambda: verify_envelope(data, keys), lambda: parse_unverified(data)):
            signed = parse()
            assert signed.snapshot.content and signed.snapshot.set_digest and signed.announced is not None

    def make(rng: Random) -> bytes:
        return seal(mutations.mutate_json(rng, snapshot)) if rng.random() < 0.6 else outer(rng)

    return Target(make, read, (EnvelopeRefused, SnapshotRefused))


def _prepare_key_sets() -> Target:
    """Sets of keys; half of them carry a valid signature over a changed document."""
    from crpbot_runtime.errors import KeysRefused
    from crpbot_runtime.protocol.public_keys import KEYS_PAYLOAD_TYPE, PublicKeys

    signer = CryptoSigner(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
    public = signer.public_key.keyval["public"]
    keys = PublicKeys(public)
    document = json.dumps({"service": "crpbot", "version": 1, "keys": [public]}).encode()

    def seal(payload: bytes) -> bytes:
        envelope = Envelope(payload, KEYS_PAYLOAD_TYPE, {})
        envelope.sign(signer)
        return json.dumps({"key_sets": [envelope.to_dict()] * 2}).encode()

    outer = mutations.from_json([seal(document)])

    def read(data: bytes) -> None:
        followed = keys.follow(data)
        assert followed.key_ids and followed.version >= 0

    def make(rng: Random) -> bytes:
        return seal(mutations.mutate_json(rng, document)) if rng.random() < 0.6 else outer(rng)

    return Target(make, read, (KeysRefused,))


def _prepare_events() -> Target:
    from crpbot_runtime.errors import StreamRefused
    from crpbot_runtime.protocol.events import EventParser

    seeds = [
        b'event: snapshot\ndata: {"a": 1}\n\n: heartbeat\n\nevent: snapshot\ndata: {"a":\ndata: 2}\n\n',
        b"retry: 3000\r\nid: 7\r\nevent: snapshot\r\ndata: x\r\n\r\n" * 20,
    ]

    def read(data: bytes) -> None:
        """The same events, however the bytes are cut."""
        whole = EventParser().feed(data)
        rng, parser, start, found = Random(len(data)), EventParser(), 0, []
        while start < len(data):
            size = rng.choice((1, 2, 7, 100, 5000))
            found += parser.feed(data[start : start + size])
            start += size
        assert found == whole

    return Target(mutations.from_bytes(seeds), read, (StreamRefused,))


def _prepare_policy() -> Target:
    from rest_framework.exceptions import ParseError

    from common.errors import InvalidInput
    from crpbot.api.parsing import StrictJSONParser
    from gates.policy import FULL_POLICY, check_policy

    def read(data: bytes) -> None:
        policy = check_policy(StrictJSONParser().parse(io.BytesIO(data)))
        assert check_policy(policy) == policy

    seeds = [json.dumps(FULL_POLICY).encode()]
    return Target(mutations.from_json(seeds), read, (InvalidInput, ParseError))


READERS = {
    reader.name: reader
    for reader in (
        Reader("candle text", _prepare_candle_texts, True, 1000),
        Reader("candle JSON", _prepare_candle_json, True, 800),
        Reader("candle table", _prepare_candle_tables, True, 600),
        Reader("canonical candles", _prepare_canonical, False, 3000),
        Reader("torch checkpoint", _prepare_torch, True, 800),
        Reader("ONNX file", _prepare_onnx, True, 2500),
        Reader("ONNX graph in a bot", _prepare_graph, False, 4000),
        Reader("imported model", _prepare_import, True, 200),
        Reader("bundle manifest", _prepare_manifest, False, 1000),
        Reader("scaler and weights", _prepare_bundle_files, True, 200),
        Reader("checkpoint of a fit", _prepare_resumed_fit, False, 5000),
        Reader("snapshot envelope", _prepare_envelope, False, 3000),
        Reader("sets of keys", _prepare_key_sets, False, 3000),
        Reader("stream of events", _prepare_events, False, 4000),
        Reader("policy document", _prepare_policy, False, 1500),
    )
}
