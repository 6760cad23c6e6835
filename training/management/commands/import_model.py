from pathlib import Path
from typing import Any

from django.core.management.base import CommandParser

from accounts.commands import ActingCommand
from common.commands import serialize
from mlcore.bundle.format import SCALER_FILE
from training.api.bundles import Bundles
from training.rules import DEFAULT_INTERVAL_SECONDS
from training.services import coins, imported_models
from training.services.imported_models import read_declaration, read_model_file


class Command(ActingCommand):
    help = "Import a model from outside, a torch .pt or an ONNX file, as a bundle."

    def add_own_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", type=Path)
        parser.add_argument("--coin", required=True)
        parser.add_argument("--line", required=True, help="of the lines that there are (`manage.py lines`)")
        parser.add_argument(
            "--schema", help="raw72, relative72 or window16 to window2048: what the model takes"
        )
        parser.add_argument("--layout", help="relu-before-bn or bn-before-relu; required for a .pt")
        parser.add_argument(
            "--interval-seconds",
            type=int,
            default=DEFAULT_INTERVAL_SECONDS,
            help="of the bars that it was trained on (3600)",
        )
        parser.add_argument(
            "--declaration",
            type=Path,
            help="a JSON file: what it was trained on and with which figures (docs/models.md)",
        )
        parser.add_argument("--simulated", action="store_true", help="it was trained on simulated candles")

    def answer(self, **options: Any) -> dict[str, Any]:
        path: Path = options["file"]
        declared: Path | None = options["declaration"]
        imported = imported_models.import_model(
            coins.find_coin(options["coin"]),
            read_model_file(path),
            name=path.name,
            line=options["line"],
            schema=options["schema"],
            layout=options["layout"],
            interval_seconds=options["interval_seconds"],
            simulated=options["simulated"],
            declaration=read_declaration(read_model_file(declared)) if declared else None,
            actor=self.actor(options),
        )
        document = serialize(Bundles.Output, imported.bundle)
        return {**document, "is_new": imported.is_new, "notes": list(imported.notes)}

    def format_answer(self, answer: dict[str, Any]) -> str:
        scaler = "with a scaler" if SCALER_FILE in answer["files"] else "without a scaler"
        simulated = "; simulated" if answer["is_simulated"] else ""
        title = f"Bundle of {answer['coin']} {answer['line']}, {scaler}{simulated}; {answer['origin']}"
        known = [] if answer["is_new"] else ["This model was imported before."]
        return "\n".join([title, answer["digest"], *known, *answer["notes"]])
