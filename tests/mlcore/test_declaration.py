"""What a person declares about a model from outside: whole, of the right types, and named where it is not."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from mlcore.errors import ImportRefused
from mlcore.features.labels import Label, LabelKind
from mlcore.features.splits import Shares
from mlcore.importers.declaration import Declaration

DIGEST = "sha256:" + "a" * 64
WINDOW = {
    "first_at": "2024-01-01T00:00:00Z",
    "last_at": "2024-06-01T00:00:00Z",
    "rows": 900,
    "digest": DIGEST,
}
WHOLE: dict[str, Any] = {
    "dataset": DIGEST,
    "labels": {"kind": "barriers", "horizon": 24, "cut": 1.5, "cuts": [-1.5, 1.5]},
    "split": {"fit_percent": 60, "stop_percent": 20},
    "windows": {name: dict(WINDOW) for name in ("fit", "stop", "gate")},
    "stop": {"loss": 0.98, "accuracy": 0.52, "rows": 900},
}


def changed(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    document = copy.deepcopy(WHOLE)
    change(document)
    return document


def test_a_whole_declaration_gives_terms_and_the_fields_of_a_manifest() -> None:
    declared = Declaration.parse(WHOLE)
    assert declared.label == Label(LabelKind.BARRIERS, 24, 1.5)
    assert (declared.shares, declared.cuts, declared.needs_scaler) == (Shares(60, 20), (-1.5, 1.5), True)
    described = declared.describe()
    assert described["windows"] == WHOLE["windows"]
    assert described["training"] == {"validation": {**WHOLE["stop"], "epoch": 0}}
    assert "scaler" not in described
    assert Declaration.parse({**WHOLE, "scaler": "none"}).describe()["scaler"] == "none"


RUN = {
    "tracker": "MLflow",
    "id": "4f0c",
    "name": "calm-bird",
    "parameters": {"trees": "60"},
    "metrics": {"loss": 0.98, "odd": "nan"},
}


def test_the_record_of_a_tracker_goes_into_the_manifest_as_it_is() -> None:
    assert Declaration.parse({**WHOLE, "run": RUN}).describe()["run"] == RUN
    assert "run" not in Declaration.parse(WHOLE).describe()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"run": 3}, "run has the entries tracker, id, name, parameters, metrics, and no others"),
        ({"run": {**RUN, "notes": "x"}}, "and no others"),
        ({"run": {name: RUN[name] for name in ("tracker", "id", "name")}}, "and no others"),
        ({"run": {**RUN, "name": None}}, "numbers, and texts of at most 500 letters"),
        ({"run": {**RUN, "name": "x" * 501}}, "numbers, and texts of at most 500 letters"),
        ({"run": {**RUN, "parameters": {"x" * 501: "1"}}}, "numbers, and texts of at most 500 letters"),
        ({"run": {**RUN, "metrics": {"loss": [0.98]}}}, "numbers, and texts of at most 500 letters"),
        ({"run": {**RUN, "metrics": [0.98]}}, r"run\.metrics is no object of at most 200 entries"),
        (
            {"run": {**RUN, "parameters": dict.fromkeys(map(str, range(201)), "1")}},
            r"run\.parameters is no object of at most 200 entries",
        ),
    ],
    ids=str,
)
def test_a_record_of_another_form_is_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(ImportRefused, match=says):
        Declaration.parse({**WHOLE, **change})


ENTRIES = [
    "dataset", "labels", "labels.kind", "labels.horizon", "labels.cut", "labels.cuts", "split", "split.fit_percent",
    "split.stop_percent", "windows", "windows.fit", "windows.gate", "windows.stop.first_at", "windows.stop.last_at",
    "windows.stop.rows", "windows.stop.digest", "stop", "stop.loss", "stop.accuracy", "stop.rows",
]  # fmt: skip


@pytest.mark.parametrize("path", ENTRIES)
def test_an_entry_that_is_missing_is_named(path: str) -> None:
    *above, last = path.split(".")

    def remove(document: dict[str, Any]) -> None:
        for step in above:
            document = document[step]
        del document[last]

    with pytest.raises(ImportRefused, match=rf"the declaration lacks .*{path}"):
        Declaration.parse(changed(remove))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d.update(colour="red"), "has no entry colour"),
        (lambda d: d["stop"].update(f1=0.5), r"has no entry stop\.f1"),
        (lambda d: d.update(dataset="abc"), "dataset is no digest"),
        (lambda d: d["labels"].update(horizon=97), "horizon: choose a whole number of bars from 1 to 96"),
        (lambda d: d["labels"].update(kind="quartiles"), "quartiles"),
        (
            lambda d: d["labels"].update(cuts=[1.5, -1.5]),
            r"labels\.cuts are not two numbers, the lower first",
        ),
        (lambda d: d["labels"].update(cuts=None), r"labels\.cuts"),
        (lambda d: d["split"].update(fit_percent=90), "fit window would be 90 %"),
        (lambda d: d["windows"].update(fit=7), r"lacks windows\.fit\.digest"),
        (
            lambda d: d["windows"]["gate"].update(first_at="yesterday"),
            r"windows\.gate begins or ends at no time",
        ),
        (lambda d: d["windows"]["gate"].update(rows=-1), r"windows\.gate\.rows"),
        (lambda d: d["windows"]["gate"].update(digest=None), r"windows\.gate\.digest"),
        (lambda d: d["stop"].update(loss=float("nan")), r"stop\.loss"),
        (lambda d: d["stop"].update(loss=10**400), r"stop\.loss"),
        (lambda d: d["stop"].update(accuracy=-(10**400)), r"stop\.accuracy is no share"),
        (lambda d: d["labels"].update(cuts=[-1, 10**400]), r"labels\.cuts"),
        (lambda d: d["stop"].update(accuracy=52), r"stop\.accuracy is no share"),
        (lambda d: d["stop"].update(rows=True), r"stop\.rows"),
        (lambda d: d.update(scaler="graph"), "scaler is"),
    ],
)
def test_an_entry_that_cannot_be_meant_is_refused(
    change: Callable[[dict[str, Any]], object], says: str
) -> None:
    with pytest.raises(ImportRefused, match=says):
        Declaration.parse(changed(change))


@pytest.mark.parametrize("document", [None, [], "{}", 7])
def test_what_is_no_object_is_refused(document: Any) -> None:
    with pytest.raises(ImportRefused, match="no JSON object"):
        Declaration.parse(document)
