"""The same file by page, by API and by command becomes the same dataset, or is refused in the same words."""

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import call_command

from tests import scenarios
from tests.api.callers import Caller
from tests.mlcore.candle_formats import FORMATS
from training.models import Dataset

pytestmark = [pytest.mark.django_db, pytest.mark.slow]

FOLDER = Path(os.environ.get("CRPBOT_CANDLES_DIR", "/nowhere"))
REAL = sorted(path for part in ("formats", "more") for path in (FOLDER / part).glob("*.*"))
REFUSED = {
    "CryptoDataDownload_Coinbase_BTC-1h.csv.gz": (
        "is there twice: delete one of its rows, or say at the import that repeated candles are taken once. Rows that repeat"
        " their neighbour value for value: 25,848, 25,850, 25,852, 25,854, 25,856",
        "repeated",
    ),
    "ts_closetime.csv": ("or say at the import that they are closing times", "closing"),
}
"""The files that are refused for their content: what to do about it, and the option that does it."""
SAID: dict[str, tuple[dict[str, str], dict[str, str], list[str]]] = {
    "repeated": ({"has_repeated_candles": "true"}, {"repeated_once": "on"}, ["--repeated-once"]),
    "closing": ({"has_closing_times": "true"}, {"closing_times": "on"}, ["--closing-times"]),
}
"""Each option by API, on the page, and as a command."""


@pytest.fixture
def everywhere(as_operator: Caller, client: Any, operator: Any, tmp_path: Path, capsys: Any) -> Any:
    """Imports a file by API, page and command. Answers the number of the dataset, or the reason of the refusal, of each."""
    scenarios.coins()
    client.force_login(operator)

    def import_file(data: bytes, name: str, option: str = "") -> list[Any]:
        by_api, on_the_page, by_command = SAID.get(option, ({}, {}, []))
        uploaded = as_operator.upload(coin="BTC", file=SimpleUploadedFile(name, data), **by_api).json()
        sent = {"coin": "BTC", "file": SimpleUploadedFile(name, data), **on_the_page}
        posted = client.post("/datasets/", sent)
        (tmp_path / name).write_bytes(data)
        capsys.readouterr()
        with contextlib.suppress(SystemExit):
            call_command(
                "import_candles",
                "BTC",
                str(tmp_path / name),
                "--as",
                operator.username,
                "--json",
                *by_command,
            )
        printed = json.loads(capsys.readouterr().out)
        on_page = (
            int(posted["Location"].split("/")[2])
            if posted.status_code == 302
            else posted.context["form"].errors["file"][0]
        )
        return [uploaded.get("id") or uploaded["detail"], on_page, printed.get("id") or printed["detail"]]

    return import_file


@pytest.mark.parametrize(
    "name", ["Binance, zipped", "CryptoDataDownload", "freqtrade, gzipped JSON", "an Arrow stream", "UTF-16"]
)
def test_a_file_of_each_form_is_one_dataset_by_page_api_and_command(name: str, everywhere: Any) -> None:
    make, said = FORMATS[name]
    answers = everywhere(make(), "candles.bin")
    dataset = Dataset.objects.get()
    assert answers == [dataset.pk] * 3
    assert all(words in dataset.import_report for words in said)


@pytest.mark.candles
@pytest.mark.parametrize("path", REAL, ids=[path.name for path in REAL])
def test_a_real_file_is_one_dataset_by_page_api_and_command(path: Path, everywhere: Any) -> None:
    answers = everywhere(path.read_bytes(), path.name)
    assert len(set(answers)) == 1
    if isinstance(answers[0], str):
        reason, option = REFUSED[path.name]
        assert reason in answers[0]
        answers = everywhere(path.read_bytes(), path.name, option)
    assert answers == [Dataset.objects.get().pk] * 3
