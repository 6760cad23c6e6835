from decimal import Decimal
from typing import Any

from django.core.management.base import CommandParser

from accounts.commands import ActingCommand
from common.errors import InvalidInput
from mlcore.errors import InvalidParameter
from studies.api import Studies, StudyDetail
from studies.models import Study
from studies.rules import Objective, Sampler
from studies.search_space import parse_range
from studies.services import launch
from training.management.settings_options import add_setting_options, read_settings
from training.services.datasets import find_dataset
from training.services.lines import DEFAULT_LINE

SHOWN = 50


class Command(ActingCommand):
    help = "List studies, show one, launch one, or cancel one."

    def add_own_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("do", choices=["list", "show", "launch", "cancel"], nargs="?", default="list")
        parser.add_argument("study", type=int, nargs="?", help="its number, to show or cancel it")
        parser.add_argument("--dataset", type=int, metavar="N")
        parser.add_argument("--line", default=DEFAULT_LINE)
        parser.add_argument(
            "--range",
            action="append",
            default=[],
            dest="ranges",
            metavar="'SETTING=KIND …'",
            help="such as 'learning_rate=log 1e-4 1e-2' or 'batch_size=choice 64 256'; once for each setting",
        )
        add_setting_options(parser)
        parser.add_argument("--objective", choices=[o.value for o in Objective], default=Objective.LOSS.value)
        parser.add_argument("--sampler", choices=[s.value for s in Sampler], default=Sampler.TPE.value)
        parser.add_argument("--no-pruning", action="store_true")
        parser.add_argument("--seed", type=int, default=launch.DEFAULT_SEED)
        parser.add_argument("--trials", type=int, default=launch.DEFAULT_TRIALS)
        parser.add_argument("--parallel", type=int, default=launch.DEFAULT_PARALLEL)
        parser.add_argument("--time-limit", type=int, metavar="SECONDS")
        parser.add_argument("--spending-limit", type=Decimal, metavar="USD")
        parser.add_argument("--reason", default="", help="of a cancellation; recorded in the audit history")

    def answer(self, **options: Any) -> Any:
        if options["do"] == "list":
            return [dict(row) for row in Studies.Output(Studies.queryset[:SHOWN], many=True).data]
        if options["do"] == "launch":
            return self._describe(self._launch(options))
        if options["study"] is None:
            raise InvalidInput(f"Say which study: manage.py studies {options['do']} N.")
        study = launch.find_study(options["study"])
        if options["do"] == "cancel":
            launch.cancel(study, actor=self.actor(options), reason=options["reason"])
        return self._describe(study)

    def _launch(self, options: dict[str, Any]) -> Study:
        if options["dataset"] is None:
            raise InvalidInput("Say on which dataset: --dataset N.", field="dataset")
        return launch.launch(
            actor=self.actor(options),
            dataset=find_dataset(options["dataset"]),
            line=options["line"],
            ranges=dict(map(_read_range, options["ranges"])),
            parameters=read_settings(options),
            objective=options["objective"],
            sampler=options["sampler"],
            prunes=not options["no_pruning"],
            seed=options["seed"],
            max_trials=options["trials"],
            parallel=options["parallel"],
            time_limit_seconds=options["time_limit"],
            spending_limit_usd=options["spending_limit"],
        )

    @staticmethod
    def _describe(study: Study) -> dict[str, Any]:
        return dict(StudyDetail.Output(launch.find_study(study.pk)).data)

    def format_answer(self, answer: Any) -> str:
        if isinstance(answer, list):
            rows = [f"study {row['id']}: {row['coin']} {row['line']}, {row['state']}" for row in answer]
            return "\n".join(rows) or "There is no study yet: launch one with --line, --dataset and --range."
        counts = ", ".join(f"{count} {state}" for state, count in answer["trials_by_state"].items())
        lines = [f"study {answer['id']} is {answer['state']}: {counts or 'no trial yet'}"]
        if answer["best_trial"] is not None:
            lines.append(
                f"best: trial {answer['best_trial']} (run {answer['best_run']}), {answer['objective']}"
                f" {answer['best_figure']:.4f}, {answer['best_parameters']}"
            )
        if answer["selection_bias"]:
            lines.append(f"expected elsewhere: {answer['selection_bias']['corrected']:.4f}")
        return "\n".join(lines)


def _read_range(text: str) -> tuple[str, dict[str, Any]]:
    name, _, written = text.partition("=")
    try:
        return name.strip(), parse_range(written)
    except InvalidParameter as refused:
        raise InvalidInput(f"--range {text}: {refused}", field=name) from refused
