"""Where a second training gives the same bytes, and by how much the logits differ where it does not.

    python -m benchmarks.reproduction [--quick] [--device cpu|cuda]

Each training runs in a process of its own, with another number of threads or with instructions that other processors lack
switched off. Where torch can use a GPU, V7 is trained on it too. The table goes to docs/reproduction.md, which keeps the
rows of a device that was not measured; with --quick it is only printed. 1 when more directions differ than the gate
*reproduced* allows, or as few with another seed.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import torch

from benchmarks.goals import Goal, check_goals
from gates.catalogue.registry import GATES
from mlcore.bundle import format as bundle_format
from mlcore.bundle.writer import write_bundle
from mlcore.data import candles
from mlcore.data.simulate import DEFAULT_DRIFT, DEMO_BARS, simulate
from mlcore.evaluation.context import EvaluationContext
from mlcore.evaluation.inspection import Inspection
from mlcore.evaluation.reproduction import measure_reproduction
from mlcore.fitting.checkpoint import EpochReport
from mlcore.fitting.fit import Prepared, Trained, fit, prepare
from mlcore.fitting.recipes import RECIPES, Recipe

REPOSITORY = Path(__file__).resolve().parent.parent
PAGE = REPOSITORY / "docs" / "reproduction.md"
LINES = ("v7_fixed", "v5")
OTHER_SEED = "another seed"
_AVX512 = "AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR"
WAYS: Mapping[str, Mapping[str, str]] = {
    "again": {},
    "resumed after every epoch": {"RESUMED": "1"},
    "four threads": dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS"), "4"),
    "a processor without AVX-512": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "OPENBLAS_CORETYPE": "Haswell",
        "NPY_DISABLE_CPU_FEATURES": _AVX512,
    },
    "a processor without AVX": {
        "ATEN_CPU_CAPABILITY": "default",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "OPENBLAS_CORETYPE": "Nehalem",
        "NPY_DISABLE_CPU_FEATURES": f"AVX2 FMA3 {_AVX512}",
    },
    OTHER_SEED: {"SEED": "2"},
}
"""How a training differs from the reference, as changes of the environment."""
WAYS_ON_A_GPU: Mapping[str, Mapping[str, str]] = {
    "again": {},
    "resumed after every epoch": {"RESUMED": "1"},
    "on the CPU": {"DEVICE": "cpu"},
    OTHER_SEED: {"SEED": "2"},
}
"""The same, for a reference that a GPU trained."""
GPU = ", on a GPU"
HEAD = f"""# A second training

A launch can ask for a [second training](glossary.md#second-training) of each model: *Train each model twice* in the form,
`"reproduce": true` by API, `manage.py release --reproduce`. Another worker then trains it again, from the same candles,
settings and seed. Both count toward the limits of the launch, and each has half of the time that it would have alone. A busy
worker is waited for as long as one training may last. The model is measured when both have ended, and the advisory gate
*reproduced* compares them:

- *passed*: the graph is equal, bit for bit, or few directions differ.
- *failed*: the second training gave another model.
- *inconclusive*: no other worker took it, so the same one trained it twice, or took part in both.
- *error*: the second training did not succeed. That rejects nothing, unless the policy in force requires the gate.

## The signed statement

Where two workers made the same graph, the service signs an [in-toto statement](https://in-toto.io). `GET
bundles/{{digest}}/statement/` answers with it: a DSSE envelope with the signatures of the active keys, as a signed snapshot
has. Its subject lists the equal files by their SHA-256. Its predicate, `urn:crpbot:reproduction:1`, names the bundle, the
candles, the recipe, the settings, the seed, and run, workers, device and code of both trainings. Two workers may share a
machine: their names show it. A snapshot names the digest and the address of each statement that was signed before its move.
A statement is signed once, so keep the public keys of its time.

```python
import json, sys
from securesystemslib.dsse import Envelope
from securesystemslib.signer import SSlibKey

envelope = Envelope.from_dict(json.load(open(sys.argv[1])))
publics = sys.argv[2].rpartition(":")[2].split(",")  # as `manage.py keys export` prints them
pairs = [(keyid, public) for keyid in envelope.signatures for public in publics]
keys = [SSlibKey(keyid, "ed25519", "ed25519", {{"public": public}}) for keyid, public in pairs]
envelope.verify(keys, threshold=1)
for file in json.loads(envelope.payload)["subject"]:
    print(file["digest"]["sha256"], file["name"])
```

## Where the bytes are the same

Written by `make reproduction`. Each line is trained on {DEMO_BARS:,} simulated candles with the settings of its recipe, once
as a reference, and then again in a process of its own, each time in another way. A processor of another kind is imitated:
PyTorch, oneDNN, OpenBLAS and NumPy are told not to use the instructions that it lacks. A bundle's files are compared by
their digests, and its logits on every row of the stop window.

| line | trained | equal files | largest difference of a logit | other directions |
| --- | --- | --- | ---: | ---: |
"""
TAIL = """
Threads, interruptions and AVX-512 change no bit of the graph that a bot runs. The scaler and the manifest may differ in the
last digit of a figure, so the gate *reproduced* compares the graph first. Without AVX the sums of V7 come out in another
order; after some hundred thousand updates the models are alike and not the same. The gate then allows 3 % of the directions
to differ. Another seed, in the last row of each line, differs in more. V5 draws nothing, so its seed changes nothing.

A GPU was not at hand. There the order of a sum is not fixed, so expect differences like those of another processor, and
compare GPU workers with GPU workers. A recipe of a package decides for itself what it draws: one that draws from its `seed`
alone gives the same bytes.
"""


def train(line: str, folder: Path, *, is_quick: bool) -> None:
    """Write the bundle of a training in this process; where `RESUMED` is set, every epoch begins with a checkpoint."""
    recipe = RECIPES[line]
    if is_quick and recipe.epochs:
        recipe = recipe.with_parameters(epochs=2, batch_size=256)
    frame = build_candles(is_quick=is_quick)
    prepared = prepare(frame, recipe)
    trained = (
        _fit_in_pieces(prepared, recipe)
        if "RESUMED" in os.environ
        else fit(prepared, recipe, seed=_get_seed(), device=_get_device())
    )
    trained = replace(trained, seed=1)  # what its manifest says, so that another seed can be compared too
    digest = candles.compute_digest(frame)
    write_bundle(
        folder, trained, coin="BTC", dataset_digest=digest, simulated=True, code_version="reproduction"
    )


def build_candles(*, is_quick: bool) -> pl.DataFrame:
    return simulate("BTC", 6_000 if is_quick else DEMO_BARS, DEFAULT_DRIFT, seed=1)


def _get_seed() -> int:
    return int(os.environ.get("SEED", "1"))


def _get_device() -> str:
    return os.environ.get("DEVICE", "cpu")


class _Stopped(Exception):
    """Carries the checkpoint of the epoch that has just ended."""

    def __init__(self, checkpoint: bytes) -> None:
        super().__init__()
        self.checkpoint = checkpoint


def _fit_in_pieces(prepared: Prepared, recipe: Recipe) -> Trained:
    checkpoint: bytes | None = None
    start = partial(fit, prepared, recipe, seed=_get_seed(), device=_get_device())

    def stop(report: EpochReport, state: bytes) -> None:
        raise _Stopped(state)

    while True:
        try:
            return start(on_epoch=stop, resume_from=checkpoint)
        except _Stopped as stopped:
            checkpoint = stopped.checkpoint
            if recipe.epochs is None:  # fitted in one piece
                return start()


def compare(work: Path, device: str, *, is_quick: bool) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(line, way, figures of `measure_reproduction`) for every line that the device trains, and way."""
    frame = build_candles(is_quick=is_quick)
    lines, ways = (LINES, WAYS) if device == "cpu" else (LINES[:1], WAYS_ON_A_GPU)
    for line in lines:
        reference = {"DEVICE": device}
        first = _train_apart(line, work / f"{line}-first", reference, is_quick=is_quick)
        for number, (way, changes) in enumerate(ways.items()):
            second = _train_apart(
                line, work / f"{line}-{number}", {**reference, **changes}, is_quick=is_quick
            )
            inspection = Inspection(first, bundle_format.verify(first).digest)
            name = line if device == "cpu" else line + GPU
            yield name, way, measure_reproduction(EvaluationContext(inspection, frame, second_folder=second))


def _train_apart(line: str, folder: Path, changes: Mapping[str, str], *, is_quick: bool) -> Path:
    arguments = ["--train", line, "--folder", str(folder), *(["--quick"] if is_quick else [])]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1", **changes}
    command = [sys.executable, "-m", "benchmarks.reproduction", *arguments]
    subprocess.run(command, env=environment, cwd=REPOSITORY, check=True)
    return folder


def format_row(line: str, way: str, figures: Mapping[str, Any]) -> str:
    equal = figures["files_equal"]
    names = ", ".join(f"`{name}`" for name, is_equal in equal.items() if is_equal) or "none"
    return (
        f"| {line} | {way} | {'all' if all(equal.values()) else names} | {figures['largest_difference']:.2g} | "
        f"{figures['directions_differing']} of {figures['rows']:,} |"
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="few candles and epochs: does it run")
    parser.add_argument("--device", choices=("cpu", "cuda"), action="append", help="measure this one only")
    parser.add_argument("--train", choices=LINES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.train:
        train(options.train, options.folder, is_quick=options.quick)
        return 0
    devices = options.device or ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    rows, goals = {"cpu": _read_rows(is_gpu=False), "cuda": _read_rows(is_gpu=True)}, []
    allowed = float(GATES["reproduced"].defaults["differing"])
    for device in devices:
        rows[device] = []
        with tempfile.TemporaryDirectory(prefix="reproduction-") as name:
            for line, way, figures in compare(Path(name), device, is_quick=options.quick):
                rows[device].append(format_row(line, way, figures))
                share = figures["directions_differing"] / figures["rows"]
                is_other = way == OTHER_SEED
                if not is_other or line != "v5":  # V5 draws nothing
                    goals.append(
                        Goal(f"{line}, {way}", share, allowed, "of directions", is_maximum=not is_other)
                    )
                print(rows[device][-1], flush=True)
    if not options.quick:
        PAGE.write_text(HEAD + "\n".join(rows["cpu"] + rows["cuda"]) + "\n" + TAIL)
    return 0 if options.quick else check_goals(*goals)


def _read_rows(*, is_gpu: bool) -> list[str]:
    """The rows of the page as it is, of the CPU or of a GPU."""
    rows = [
        line
        for line in PAGE.read_text().splitlines()
        if line.startswith(tuple(f"| {name}" for name in LINES))
    ]
    return [row for row in rows if (GPU in row) == is_gpu]


if __name__ == "__main__":
    sys.exit(main())
