import socket
from typing import Any

from django.core.management.base import CommandParser

from accounts.commands import ActingCommand
from common.errors import Conflict, InvalidInput
from mlcore.fitting.recipes import RECIPES
from training import services
from training.models import TrainingRun
from training.presentation import run_document, run_sentence
from training.rules import JobState

ASKED = ("epochs", "batch_size", "learning_rate", "patience", "label_smoothing")


class Command(ActingCommand):
    help = "Train one coin here and now, in this process; --like-run repeats a run, to see why it failed."

    def add_own_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--coin", help="needed without --like-run, whose coin it else is")
        parser.add_argument(
            "--like-run",
            type=int,
            metavar="N",
            help="the coin, data, seed and parameters of run N, but for the parameters given here",
        )
        parser.add_argument("--dataset", type=int, metavar="N", help="the coin's newest one by default")
        parser.add_argument("--line", choices=list(RECIPES), help="v7_fixed by default")
        parser.add_argument("--seed", type=int)
        for name in ASKED:
            whole = name in ("epochs", "batch_size", "patience")
            parser.add_argument(f"--{name.replace('_', '-')}", type=int if whole else float)
        parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")

    def answer(self, **options: Any) -> dict[str, Any]:
        from training import worker  # here torch is wanted

        run = self._launched(options)
        for line in run.log.all():
            self.stderr.write(self.style.WARNING(line.text))
        trained = worker.train(
            run.pk,
            worker_name=f"train@{socket.gethostname()}",
            device=options["device"],
            on_epoch=None if options["json"] else lambda report: self.stdout.write(worker.epoch_line(report)),
        )
        if trained is None:
            run.refresh_from_db()
            raise Conflict(f"{run} could not be worked on here: it is {run.state}. {run.failure}".rstrip())
        return run_document(trained)

    def _launched(self, options: dict[str, Any]) -> TrainingRun:
        actor = self.actor(options)
        asked = {name: options[name] for name in ASKED if options[name] is not None}
        if options["like_run"] is not None:
            seed = {} if options["seed"] is None else {"seed": options["seed"]}
            like = _repeated(options)
            return services.repeat(like, changes={**asked, **seed}, actor=actor, is_sent=False)
        if not options["coin"]:
            raise InvalidInput("Name a coin with --coin, or a run to repeat with --like-run.")
        coin = services.find_coin(options["coin"])
        dataset = (
            services.find_dataset(options["dataset"]) if options["dataset"] else services.latest_dataset(coin)
        )
        return services.launch_run(
            coin=coin,
            dataset=dataset,
            line=options["line"] or "v7_fixed",
            parameters=asked,
            seed=options["seed"] or 0,
            budget=services.open_budget(),
            actor=actor,
            is_sent=False,
        )

    def failed(self, answer: dict[str, Any]) -> bool:
        return bool(answer["state"] != JobState.SUCCEEDED)

    def say(self, answer: dict[str, Any]) -> str:
        return run_sentence(answer)


def _repeated(options: dict[str, Any]) -> TrainingRun:
    """The run to repeat. Raises InvalidInput where something else was asked for that contradicts it."""
    if options["line"] or options["dataset"]:
        raise InvalidInput("--like-run repeats the line and the dataset of that run: leave those two out.")
    like = services.find_run(options["like_run"])
    if options["coin"] and services.find_coin(options["coin"]) != like.coin:
        raise InvalidInput(f"{like} is not of {options['coin']}: leave --coin out.", field="coin")
    return like
