"""The service as a notebook uses it: datasets down, a model up, a launch, and its end."""

import json
import time
from collections.abc import Mapping
from io import BytesIO
from typing import Any, Self

import polars as pl

from crpbot_runtime.errors import FileRefused, Refused
from crpbot_runtime.protocol.service import Service
from crpbot_runtime.train.rows import Rows, prepare
from mlcore.data import candles as candle_values

API = "/api/v1/"
PAGE_ROWS = 500
MAX_ANSWER_BYTES = 64 * 2**20
MAX_CANDLES_BYTES = 512 * 2**20
LOOK_EVERY_S = 2.0
BUILDING = "building"


class Gate:
    """One service, asked with an operator's token. Every method raises a ClientError that says what to do.

    `url` may have a path below which the API lies; `timeout_s` bounds each wait for the network.
    """

    def __init__(self, url: str, token: str, *, timeout_s: float = 60.0) -> None:
        self._service = Service(
            url, token, timeout_s=timeout_s, needs="a notebook needs the scope 'operator'"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Gate({str(self._service.url)!r})"

    def close(self) -> None:
        self._service.close()

    def datasets(self, **filters: str) -> list[dict[str, Any]]:
        """The datasets, the newest first; `coin`, `verdict` and the other filters of `GET datasets/` choose among them."""
        found: list[dict[str, Any]] = []
        while True:
            page = self._get("datasets/", {**filters, "limit": str(PAGE_ROWS), "offset": str(len(found))})
            found += page["results"]
            if not page["next"] or not page["results"]:
                return found

    def download(self, dataset: Mapping[str, Any]) -> pl.DataFrame:
        """The candles of a listed dataset, checked against its digest. Raises FileRefused for other candles."""
        path = f"{API}datasets/{dataset['id']}/candles.parquet"
        data = self._service.ask("GET", path, at_most=MAX_CANDLES_BYTES)
        try:
            frame = pl.read_parquet(BytesIO(data))
            digest = candle_values.compute_digest(frame)
        except (pl.exceptions.PolarsError, ValueError, OSError) as error:
            raise FileRefused(f"dataset {dataset['id']} came as what is no candle file: {error}") from error
        if digest != dataset["digest"]:
            raise FileRefused(f"dataset {dataset['id']} has other candles than its digest says: {digest}")
        return frame

    def prepare(self, dataset: Mapping[str, Any], **settings: Any) -> Rows:
        """Download a listed dataset and prepare it: features, labels and the purged split, as the gates compute them.

        `settings` are those of `rows.prepare`: input, label, horizon, cut, fit_percent, stop_percent.
        """
        return prepare(self.download(dataset), dataset, **settings)

    def upload(
        self, rows: Rows, graph: bytes, *, line: str, has_scaler: bool, name: str = "model.onnx"
    ) -> dict[str, Any]:
        """Import a graph that was fitted on these rows, with its declaration; returns the bundle.

        `has_scaler`: whether the graph begins with (features − mean) / scale. `name` is the file's, for the records.
        """
        declaration = json.dumps(rows.declare(graph, has_scaler=has_scaler), allow_nan=False).encode()
        form = {
            "coin": str(rows.dataset["coin"]),
            "line": line,
            "schema": rows.schema.name,
            "interval_seconds": str(rows.examples.interval_seconds),
            "is_simulated": "true" if rows.dataset["is_simulated"] else "false",
        }
        files = {"file": (name, graph), "declaration": ("declaration.json", declaration)}
        return self._ask("POST", "bundles/", data=form, files=files)

    def launch(
        self,
        line: str,
        *,
        bundles: Mapping[str, str] | None = None,
        datasets: Mapping[str, int] | None = None,
        seed: int | None = None,
        purpose: str = "candidate",
        **settings: Any,
    ) -> dict[str, Any]:
        """Launch a release; returns it. `bundles` (digests) and `datasets` (ids) are by coin.

        A bundle that is named is measured; a coin without one is trained, by the `settings` of the line. Measure a model
        from outside on a dataset that came after it: on another, no gate can tell what it has seen.
        """
        given = {"bundles": bundles, "datasets": datasets, "seed": seed, **settings}
        body = {"line": line, "purpose": purpose} | {k: v for k, v in given.items() if v is not None}
        return self._ask("POST", "releases/", json=body)

    def wait(self, release: Mapping[str, Any], *, seconds: float = 3 * 3600.0) -> dict[str, Any]:
        """The release once it has settled, with every gate of every coin. Raises TimeoutError if it takes longer."""
        deadline = time.monotonic() + seconds
        while True:
            found = self._get(f"releases/{release['id']}/", {})
            if found["state"] != BUILDING:
                return found
            if time.monotonic() + LOOK_EVERY_S > deadline:
                raise TimeoutError(
                    f"release {release['id']} has not settled within {seconds:g} s; wait again"
                )
            time.sleep(LOOK_EVERY_S)

    def _get(self, path: str, query: Mapping[str, str]) -> dict[str, Any]:
        return self._ask("GET", path, params=dict(query))

    def _ask(self, method: str, path: str, **sent: Any) -> dict[str, Any]:
        data = self._service.ask(method, API + path, at_most=MAX_ANSWER_BYTES, **sent)
        try:
            answer = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise Refused(f"{path} answers what is no JSON") from error
        if not isinstance(answer, dict):
            raise Refused(f"{path} answers what is no JSON object")
        return answer
