"""The service as a notebook uses it: datasets down, a model up, a launch, and its end."""

import json
import time
from collections.abc import Mapping
from datetime import datetime
from io import BytesIO
from typing import TYPE_CHECKING, Any, Self

import polars as pl

from crpbot_runtime.errors import FileRefused, Misconfigured, Refused
from crpbot_runtime.protocol.service import Service
from crpbot_runtime.train.rows import Rows, prepare
from mlcore.data import candles as candle_values

if TYPE_CHECKING:
    from crpbot_runtime.train.local_gates import Check

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
        return self._list("datasets/", **filters)

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

    def policy(self, draft: str | None = None) -> dict[str, Any]:
        """The policy in force, with its `number` and `document`; or a draft that comes with the service, by its name."""
        if draft is not None:
            drafts = {each["name"]: each for each in self._get("policies/drafts/", {})["drafts"]}
            if draft not in drafts:
                raise Misconfigured(f"there is no draft {draft[:40]!r}; choose {', '.join(drafts)}")
            return dict(drafts[draft])
        adopted = [
            (adoption["at"], policy) for policy in self._list("policies/") for adoption in policy["adoptions"]
        ]
        if not adopted:
            raise Refused("the service has no policy in force")
        return max(adopted, key=lambda each: each[0])[1]

    def check(
        self, rows: Rows, graph: bytes, *, has_scaler: bool, policy: Mapping[str, Any] | None = None
    ) -> "Check":
        """Run the gates here, on the stop window, by the policy in force or another: nothing is sent, and no attempt counts.

        Needs the packages of `crpbot-runtime[train]`. Raises like `Rows.declare`, and ImportRefused for what
        an upload refuses.
        """
        try:
            from crpbot_runtime.train import local_gates  # needs packages that a bot has not
        except ImportError as error:
            raise Misconfigured(
                f"the gates cannot be run here ({error}): pip install 'crpbot-runtime[train]', on Linux or macOS"
            ) from error
        document = (policy or self.policy())["document"]
        return local_gates.run(rows, graph, document, has_scaler=has_scaler)

    def upload(
        self,
        rows: Rows,
        graph: bytes,
        *,
        line: str,
        has_scaler: bool,
        name: str = "model.onnx",
        run: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Import a graph that was fitted on these rows, with its declaration; returns the bundle.

        `has_scaler`: whether the graph begins with (features − mean) / scale. `name` is the file's, for the records; `run`
        the record of a tracker (docs/models.md), which the service keeps with the model and no gate believes.
        """
        declared = rows.declare(graph, has_scaler=has_scaler, run=run)
        declaration = json.dumps(declared, allow_nan=False).encode()
        form = {
            "coin": str(rows.dataset["coin"]),
            "line": line,
            "schema": rows.schema.name,
            "interval_seconds": str(rows.examples.interval_seconds),
            "is_simulated": "true" if rows.dataset["is_simulated"] else "false",
        }
        files = {"file": (name, graph), "declaration": ("declaration.json", declaration)}
        return self._ask("POST", "bundles/", data=form, files=files)

    def import_mlflow_run(
        self, client: Any, run_id: str, rows: Rows, *, line: str, has_scaler: bool, model: str = "model"
    ) -> dict[str, Any]:
        """Upload the ONNX model of an MLflow run that was fitted on these rows, with the run's parameters and metrics.

        `client` is your `mlflow.MlflowClient`; `model` names the artifact or logged model of the run. Needs onnx, as
        `check` does. Raises like `upload`, and what MLflow raises.
        """
        graph, run = _load_mlflow_runs().read_run(client, run_id, model)
        name = f"mlflow-{run_id}.onnx"
        return self.upload(rows, graph, line=line, has_scaler=has_scaler, name=name, run=run)

    def export_release(
        self, client: Any, release: Mapping[str, Any], *, name: str | None = None
    ) -> dict[str, str]:
        """Write a settled release to MLflow: for each coin a version of the registered model `name`-coin; returns these.

        `client` is your `mlflow.MlflowClient`. Verdict, state, policy and every gate are tags, as they are now; without a
        name it is that of the line. Raises Misconfigured for a release that has not settled, and what MLflow raises.
        """
        found = self._get(f"releases/{release['id']}/", {})
        if found["state"] == BUILDING:
            raise Misconfigured(f"release {found['id']} has not settled: wait for it before it is exported")
        written = _load_mlflow_runs().write_release(client, found, self._download, name=name or found["line"])
        return dict(written)

    def _download(self, file: Mapping[str, Any]) -> bytes:
        """A file that a release lists."""
        path = f"{API}artifacts/{file['sha256']}"
        return self._service.ask("GET", path, at_most=int(file["size"]))

    def wait_for_dataset(self, bundle: Mapping[str, Any], *, seconds: float = 3 * 3600.0) -> dict[str, Any]:
        """The newest dataset of the bundle's coin and interval that passed its checks and came after the bundle.

        Only on such candles can a model from outside pass the gate *window*. Of real ones, the gate window itself must begin
        after the upload. Raises TimeoutError while there is none.
        """
        deadline = time.monotonic() + seconds
        kind = {
            "coin": str(bundle["coin"]),
            "is_simulated": "true" if bundle["is_simulated"] else "false",
            "verdict": "passed",
        }
        while True:
            for found in self.datasets(**kind):
                is_newer = datetime.fromisoformat(found["created_at"]) > datetime.fromisoformat(
                    bundle["created_at"]
                )
                if is_newer and found["interval_seconds"] == bundle["interval_seconds"]:
                    return found
            if time.monotonic() + LOOK_EVERY_S > deadline:
                raise TimeoutError(
                    f"no candles of {bundle['coin']} that passed have come since the model: import later ones, or simulate"
                    " another market, and wait again"
                )
            time.sleep(LOOK_EVERY_S)

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

    def _list(self, path: str, **filters: str) -> list[dict[str, Any]]:
        """Every page of a list."""
        found: list[dict[str, Any]] = []
        while True:
            page = self._get(path, {**filters, "limit": str(PAGE_ROWS), "offset": str(len(found))})
            found += page["results"]
            if not page["next"] or not page["results"]:
                return found

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


def _load_mlflow_runs() -> Any:
    try:
        from crpbot_runtime.train import mlflow_runs  # needs a package that a bot has not
    except ImportError as error:
        raise Misconfigured(
            f"graphs of MLflow cannot be read here ({error}): pip install 'crpbot-runtime[train]'"
        ) from error
    return mlflow_runs
