"""A bundle has one name for one content, and a changed byte anywhere is noticed."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from safetensors.numpy import load

from mlcore.bundle import format as bundle_format
from mlcore.bundle import onnx_graph, writer
from mlcore.bundle.format import MANIFEST_FILE, MODEL_FILE, SCALER_FILE, WEIGHTS_FILE, Bundle
from mlcore.errors import BundleRefused
from mlcore.features.indicators import SCHEMAS
from mlcore.features.labels import DEFAULT_LABEL
from mlcore.features.splits import DEFAULT_SHARES
from mlcore.fitting.fit import Trained
from tests.mlcore.conftest import WriteBundle


@pytest.fixture
def copy(v7_bundle: Bundle, tmp_path: Path) -> Path:
    """A bundle of one's own to damage."""
    return Path(shutil.copytree(v7_bundle.folder, tmp_path / "copy"))


def rewrite_manifest(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    document = json.loads((folder / MANIFEST_FILE).read_bytes())
    change(document)
    (folder / MANIFEST_FILE).write_bytes(bundle_format.to_canonical_json(document))


@pytest.mark.parametrize("line", ["v5", "v6", "v7"])
def test_written_twice_in_two_folders_it_has_one_digest(
    line: str, request: pytest.FixtureRequest, write: WriteBundle, tmp_path: Path
) -> None:
    trained, first = request.getfixturevalue(line), request.getfixturevalue(f"{line}_bundle")
    again = write(trained, tmp_path / "elsewhere" / "deeper")
    assert again.digest == first.digest
    for path in first.folder.iterdir():
        assert path.read_bytes() == (again.folder / path.name).read_bytes()


def test_the_digest_is_the_sha256_of_the_manifest_as_it_lies_there(v7_bundle: Bundle) -> None:
    digest = hashlib.sha256((v7_bundle.folder / MANIFEST_FILE).read_bytes()).hexdigest()
    assert v7_bundle.digest == f"sha256:{digest}"


def test_the_manifest_says_all_that_is_needed_to_judge_and_to_repeat(v7_bundle: Bundle, v7: Trained) -> None:
    manifest = v7_bundle.manifest
    assert (manifest.coin, manifest.line, manifest.is_simulated, manifest.seed) == (
        "BTC",
        "v7_fixed",
        True,
        0,
    )
    assert manifest.interval_seconds == 3600
    assert manifest.schema is SCHEMAS["relative72"]
    assert manifest.cuts == v7.prepared.cuts
    assert manifest.document["parameters"] == v7.recipe.parameters()
    assert set(manifest.files) == {MODEL_FILE, WEIGHTS_FILE, SCALER_FILE}
    windows = manifest.document["windows"]
    assert windows["fit"]["last_at"] < windows["stop"]["first_at"] < windows["gate"]["first_at"]


def test_the_manifest_names_the_libraries_that_are_installed() -> None:
    """A notebook without torch fits a V5 too."""
    schema = SCHEMAS["relative72"]
    described = writer.describe_contents(
        schema, DEFAULT_LABEL, None, DEFAULT_SHARES, 3600, ("numpy", "no-package-of-this-name")
    )
    assert set(described["libraries"]) == {"python", "numpy"}


def test_no_file_tells_where_or_by_whom_it_was_written(v7_bundle: Bundle) -> None:
    here = str(Path(__file__).parents[2]).encode()
    for path in v7_bundle.folder.iterdir():
        data = path.read_bytes()
        assert here not in data
        assert str(v7_bundle.folder).encode() not in data
        assert b"pytorch" not in data


def test_weights_and_scaler_are_those_that_were_trained(v7_bundle: Bundle, v7: Trained) -> None:
    stored = load(v7_bundle.read_payload(WEIGHTS_FILE))
    assert {name: array.tobytes() for name, array in stored.items()} == {
        name: array.tobytes() for name, array in v7.weights.items()
    }
    scaler = json.loads(v7_bundle.read_payload(SCALER_FILE))
    assert tuple(scaler["names"]) == SCHEMAS["relative72"].columns
    assert np.array_equal(scaler["mean"], v7.scaler.mean)
    assert np.array_equal(scaler["scale"], v7.scaler.scale)


def test_v6_comes_without_its_scaler(v6_bundle: Bundle) -> None:
    assert not (v6_bundle.folder / SCALER_FILE).exists()
    assert SCALER_FILE not in v6_bundle.manifest.files


@pytest.mark.parametrize("line", ["v5", "v6", "v7"])
def test_the_graph_is_valid_onnx_with_every_tensor_in_its_shape(
    line: str, request: pytest.FixtureRequest
) -> None:
    written: Bundle = request.getfixturevalue(f"{line}_bundle")
    model = onnx.load_model_from_string(written.read_payload(MODEL_FILE))
    onnx.checker.check_model(model, full_check=True)
    tensors = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    expected = onnx_graph.list_tensor_shapes(tensors)
    scaler = {} if line == "v6" else {"scaler.mean": (72,), "scaler.scale": (72,)}
    assert tensors == expected | scaler


def test_an_existing_folder_is_never_written_into(v7: Trained, write: WriteBundle, copy: Path) -> None:
    (copy / MODEL_FILE).write_bytes(b"mine")
    with pytest.raises(BundleRefused, match="copy cannot be written"):
        write(v7, copy)
    assert (copy / MODEL_FILE).read_bytes() == b"mine"
    assert [path.name for path in copy.parent.iterdir()] == ["copy"]


@pytest.mark.parametrize("name", [MODEL_FILE, WEIGHTS_FILE, SCALER_FILE])
def test_one_changed_byte_of_any_file_is_noticed(name: str, copy: Path) -> None:
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(BundleRefused, match=f"{name} is not the file the manifest names"):
        bundle_format.verify(copy)


@pytest.mark.parametrize("name", [MODEL_FILE, WEIGHTS_FILE, SCALER_FILE])
def test_a_missing_or_shortened_file_is_noticed(name: str, copy: Path) -> None:
    (copy / name).write_bytes((copy / name).read_bytes()[:-1])
    with pytest.raises(BundleRefused, match=f"{name} has .* bytes, the manifest says"):
        bundle_format.verify(copy)
    (copy / name).unlink()
    with pytest.raises(BundleRefused, match=f"{name} is missing"):
        bundle_format.verify(copy)


def test_another_manifest_is_another_bundle(v7_bundle: Bundle, copy: Path) -> None:
    rewrite_manifest(copy, lambda document: document.update(coin="ETH"))
    assert bundle_format.verify(copy).digest != v7_bundle.digest
    with pytest.raises(BundleRefused, match=r"makes this bundle sha256:.*, expected sha256:"):
        bundle_format.verify(copy, v7_bundle.digest)


MANIFEST_FAULTS: dict[str, tuple[bytes | Callable[[dict[str, Any]], object], str]] = {
    "nothing": (b"", "not JSON"),
    "not JSON": (b"{", "not JSON"),
    "nested beyond measure": (b"[" * 100_000, "not JSON"),
    "a list": (b"[]", "not a JSON object"),
    "too large": (b" " * (1024 * 1024 + 1), "larger than"),
    "another format": (lambda d: d.update(format=2), "format 2, this code reads 1"),
    "without its coin": (lambda d: d.pop("coin"), "a field is missing"),
    "cuts that are words": (
        lambda d: d["labels"].update(cuts="no"),
        "a field is missing or has another type",
    ),
    "an interval in words": (lambda d: d.update(interval_seconds="1h"), "an interval of '1h' seconds"),
    "no interval": (lambda d: d.update(interval_seconds=0), "an interval of 0 seconds"),
    "a file outside the folder": (
        lambda d: d["files"].update({"../../etc/passwd": {"sha256": "0", "size": 1}}),
        "a file of the name '../../etc/passwd'",
    ),
}


@pytest.mark.parametrize(("fault", "reason"), MANIFEST_FAULTS.values(), ids=MANIFEST_FAULTS)
def test_a_manifest_that_is_no_manifest_is_refused(
    fault: bytes | Callable[[dict[str, Any]], object], reason: str, copy: Path
) -> None:
    if isinstance(fault, bytes):
        (copy / MANIFEST_FILE).write_bytes(fault)
    else:
        rewrite_manifest(copy, fault)
    with pytest.raises(BundleRefused, match=reason):
        bundle_format.read(copy)


def test_a_manifest_edited_by_hand_is_refused_even_if_it_means_the_same(copy: Path) -> None:
    document = json.loads((copy / MANIFEST_FILE).read_bytes())
    (copy / MANIFEST_FILE).write_text(json.dumps(document, indent=2))
    with pytest.raises(BundleRefused, match="not in canonical form"):
        bundle_format.read(copy)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"name": "relative73"}, "'relative73' is unknown here; update the client"),
        ({"digest": "sha256:0"}, "its features would mean something else"),
    ],
)
def test_a_schema_other_than_this_codes_is_refused(change: dict[str, str], reason: str, copy: Path) -> None:
    rewrite_manifest(copy, lambda document: document["schema"].update(change))
    with pytest.raises(BundleRefused, match=reason):
        _ = bundle_format.read(copy).manifest.schema
