import socket
from typing import Any

from django.core.management.base import CommandParser

from accounts.commands import ActingCommand
from common.commands import serialize
from common.errors import Conflict, InvalidInput
from mlcore.quality.result import format_interval
from training.api.runs import Runs
from training.management.settings_options import add_setting_options, read_settings
from training.models import TrainingRun
from training.rules import JobState
from training.services import coins, datasets, runs
from training.services.lines import DEFAULT_LINE


class Command(ActingCommand):
    help = "Train one coin in this process; --like-run repeats a run, to see why it failed."

    def add_own_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--coin", help="required without --like-run, which names a run and so its coin")
        parser.add_argument(
            "--like-run",
            type=int,
            metavar="N",
            help="take coin, dataset, seed and parameters from run N; options given here override them",
        )
        parser.add_argument("--dataset", type=int, metavar="N", help="default: the coin's newest dataset")
        parser.add_argument("--line", help=f"default: {DEFAULT_LINE}")
        parser.add_argument("--seed", type=int)
        add_setting_options(parser)
        parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")

    def answer(self, **options: Any) -> dict[str, Any]:
        from training import worker  # imports torch

        run = self._launch_run(options)
        self.stderr.write(_describe(run))
        for line in run.log.all():
            self.stderr.write(self.style.WARNING(line.text))
        trained = worker.train(
            run.pk,
            worker_name=f"train@{socket.gethostname()}",
            device=options["device"],
            on_epoch=None
            if options["json"]
            else lambda report: self.stdout.write(worker.format_epoch(report)),
        )
        if trained is None:
            run.refresh_from_db()
            raise Conflict(f"{run} could not be trained here: it is {run.state}. {run.failure}".rstrip())
        return serialize(Runs.Output, Runs.queryset.get(pk=trained.pk))

    def _launch_run(self, options: dict[str, Any]) -> TrainingRun:
        actor = self.actor(options)
        parameters = read_settings(options)
        if options["like_run"] is not None:
            seed = {} if options["seed"] is None else {"seed": options["seed"]}
            like = _find_run_to_repeat(options)
            return runs.repeat(like, changes={**parameters, **seed}, actor=actor, is_sent=False)
        if not options["coin"]:
            raise InvalidInput("Name a coin with --coin, or a run to repeat with --like-run.")
        coin = coins.find_coin(options["coin"])
        dataset = (
            datasets.find_dataset(options["dataset"]) if options["dataset"] else datasets.latest_dataset(coin)
        )
        return runs.launch_run(
            coin=coin,
            dataset=dataset,
            line=options["line"] or DEFAULT_LINE,
            parameters=parameters,
            seed=options["seed"] or 0,
            budget=runs.open_budget(),
            actor=actor,
            is_sent=False,
        )

    def is_failure(self, answer: dict[str, Any]) -> bool:
        return bool(answer["state"] != JobState.SUCCEEDED)

    def format_answer(self, answer: dict[str, Any]) -> str:
        cost = (
            f"{answer['billed_seconds']:.1f} s on {answer['device'] or 'no device'}, ${answer['spent_usd']}"
        )
        title = f"Run {answer['id']} {answer['state']}"
        if answer["failure"]:
            return f"{title}: {answer['failure']} ({cost})"
        return (
            f"{title} after {answer['epochs_done']} epochs ({cost}); best epoch {answer['best_epoch']},"
            f" validation accuracy {answer['best_validation_accuracy']:.4f}\nbundle {answer['bundle']}"
        )


def _describe(run: TrainingRun) -> str:
    """What is trained on what: the dataset may have been chosen by default."""
    data = run.dataset
    kind = "simulated" if data.is_simulated else "real"
    return (
        f"{run.line} of {run.coin} on dataset {data.pk}: {data.rows:,} {kind} bars of"
        f" {format_interval(data.interval_seconds)}, {data.first_at:%Y-%m-%d} to {data.last_at:%Y-%m-%d}, {data.origin}"
    )


def _find_run_to_repeat(options: dict[str, Any]) -> TrainingRun:
    """The run of --like-run. Raises InvalidInput when another option contradicts it."""
    if options["line"] or options["dataset"]:
        raise InvalidInput(
            "--like-run repeats the line and the dataset of that run: omit --line and --dataset."
        )
    like = runs.find_run(options["like_run"])
    if options["coin"] and coins.find_coin(options["coin"]) != like.coin:
        raise InvalidInput(f"{like} is not a run of {options['coin']}: omit --coin.", field="coin")
    return like
