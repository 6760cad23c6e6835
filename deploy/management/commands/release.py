import time
from collections.abc import Iterable
from typing import Any, TypeVar

from django.core.management.base import CommandParser

from accounts.commands import ActingCommand
from common.errors import InvalidInput
from deploy.api.releases import find_release, serialize_release
from deploy.models import Release
from deploy.pointer import pointer
from deploy.releases.launch import launch
from deploy.releases.presentation import format_gate_table, format_progress
from deploy.releases.preview import list_unchanged_coins
from deploy.rules import Purpose, ReleaseState
from studies.services.launch import find_study
from training.management.settings_options import add_setting_options, read_settings
from training.models import Bundle, Dataset
from training.services import bundles

Named = TypeVar("Named", Bundle, Dataset)


class Command(ActingCommand):
    help = (
        "Launch a release: train, measure and judge every required coin. With --wait, until it has settled."
    )

    def add_own_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--line", required=True, help="of the lines that there are (`manage.py lines`), such as v7_fixed"
        )
        add_setting_options(parser)
        parser.add_argument("--seed", type=int)
        parser.add_argument(
            "--dataset",
            action="append",
            default=[],
            metavar="COIN=ID",
            help="a coin's dataset; its newest that passed otherwise",
        )
        parser.add_argument(
            "--bundle",
            action="append",
            default=[],
            metavar="COIN=DIGEST",
            help="a coin's bundle, measured instead of training one; the beginning of its digest is enough",
        )
        parser.add_argument(
            "--purpose", choices=[purpose.value for purpose in Purpose], default=Purpose.CANDIDATE.value
        )
        parser.add_argument(
            "--reproduce",
            action="store_true",
            help="train each model again on a second worker and compare the two",
        )
        parser.add_argument(
            "--study", type=int, metavar="N", help="train with parameters and seed of study N's best trial"
        )
        parser.add_argument("--wait", action="store_true", help="show its progress until it has settled")

    def answer(self, **options: Any) -> dict[str, Any]:
        release = launch(
            options["line"],
            actor=self.actor(options),
            parameters=read_settings(options),
            datasets=_once_each("--dataset", map(self._dataset, options["dataset"])),
            bundles=_once_each("--bundle", map(self._bundle, options["bundle"])),
            seed=options["seed"],
            purpose=Purpose(options["purpose"]),
            reproduce=options["reproduce"],
            study=None if options["study"] is None else find_study(options["study"]),
        )
        if options["wait"]:
            self._wait(release)
        return serialize_release(release)

    def _dataset(self, text: str) -> tuple[str, Dataset]:
        symbol, _, number = text.partition("=")
        dataset = Dataset.objects.filter(pk=number).first() if number.isdigit() else None
        if dataset is None:
            raise InvalidInput(f"--dataset {text}: say COIN=ID with the number of a dataset that exists.")
        return symbol, dataset

    def _bundle(self, text: str) -> tuple[str, Bundle]:
        symbol, equals, digest = text.partition("=")
        if not equals or not digest:
            raise InvalidInput(f"--bundle {text}: say COIN=DIGEST.")
        return symbol, bundles.find_bundle(digest, coin=symbol)

    def _wait(self, release: Release) -> None:
        """Until settled; a release to be inherited never settles, and is done once every coin is diagnosed."""
        last = ""
        while True:
            release = Release.objects.select_related("status").get(pk=release.pk)
            line = format_progress(release)
            if line != last:
                self.stderr.write(line)
                last = line
            is_measured = all(release_coin.diagnosis_id for release_coin in release.coins.all())
            if release.state != ReleaseState.BUILDING or (
                release.purpose == Purpose.INHERITED and is_measured
            ):
                return
            time.sleep(0.5)

    def format_answer(self, answer: dict[str, Any]) -> str:
        head = f"release {answer['id']} ({answer['line']}) is {answer['state']}"
        because = f"\nbecause: {answer['reason']}" if answer["reason"] else ""
        table = format_gate_table(answer["coins"])
        return "\n".join(filter(None, (f"{head}{because}", table, self._next(answer))))

    def _next(self, answer: dict[str, Any]) -> str:
        if answer["state"] != ReleaseState.AWAITING_APPROVAL:
            return ""
        number = answer["id"]
        same = ", ".join(list_unchanged_coins(find_release(number), pointer.get_current()))
        unchanged = f"The bots run the same bundle already for {same}.\n" if same else ""
        return unchanged + (
            f"Next, by an approver who did not launch it: manage.py approve {number} --reason … (or decline)"
        )

    def is_failure(self, answer: dict[str, Any]) -> bool:
        return bool(answer["state"] == ReleaseState.REJECTED)


def _once_each(option: str, named: Iterable[tuple[str, Named]]) -> dict[str, Named]:
    """What was named for each coin; a coin named twice is a slip, and which of the two was meant nobody can tell."""
    chosen: dict[str, Named] = {}
    for symbol, value in named:
        if symbol in chosen:
            raise InvalidInput(f"{option} names {symbol} twice: name each coin once.")
        chosen[symbol] = value
    return chosen
