"""Launching a release."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from accounts.roles import Actor, Role
from audit import services as audit
from common import correlation
from common.errors import Conflict, InvalidInput
from deploy.models import Release, ReleaseCoin, ReleaseStatus
from deploy.outcomes import list_required_coins
from deploy.pointer import pointer
from deploy.releases import settle
from deploy.rules import Purpose
from gates.services import policies
from mlcore.fitting.recipes import FLAT_LINE
from mlcore.quality.result import format_interval
from studies.models import Study
from studies.services import results
from training.models import Bundle, Coin, Dataset, Line
from training.rules import require_seed
from training.services import candle_checks, datasets, lines, runs

DEFAULT_SEED = 1


def launch(
    line: str,
    *,
    actor: Actor,
    parameters: Mapping[str, Any] | None = None,
    datasets: Mapping[str, Dataset] | None = None,
    bundles: Mapping[str, Bundle] | None = None,
    seed: int | None = None,
    purpose: Purpose = Purpose.CANDIDATE,
    reproduce: bool = False,
    study: Study | None = None,
) -> Release:
    """Launch a release: a run for every required coin, on the named dataset or else on its newest one that passed.

    A coin whose bundle is named is not trained: that bundle is measured on the dataset and judged. With `reproduce` a second
    worker trains each other model again, within the same limits, and the gate *reproduced* compares the two. With a study,
    it trains with the parameters and the seed of the study's best trial, and says for good of how many that was the best.
    Raises NotAllowed without the operator role, InvalidInput for an unknown line, a parameter out of its bounds, a bundle
    that is not of the coin and line, datasets, bundles or a study of different bar intervals, or a coin without candles or
    with too few, Conflict for candles that did not pass, for another bar interval than the service's, or when a second
    release would be inherited.
    """
    requested = Release(line=line[:32], purpose=purpose, launched_by=actor.name, study=study)
    if study is not None:
        requested.best_of = study.trials.count()
    with (
        correlation.span("release.launch", line=requested.line),
        audit.record_refusals("release.launch", requested, actor=actor),
    ):
        actor.require(Role.OPERATOR, "launch a release")
        if study is not None:
            parameters, seed = _choose_best(study, line, parameters or {}, seed)
        parameters = dict(parameters or {})
        named_line = lines.find_line(line)
        if named_line.recipe or parameters:
            lines.build_recipe(named_line, parameters)
        _check_purpose(named_line, purpose)
        chosen = _choose_datasets(datasets or {}, study)
        interval_seconds = _find_interval(chosen)
        if study is not None and study.dataset.interval_seconds != interval_seconds:
            raise InvalidInput(
                f"The trials of {study} had bars of {format_interval(study.dataset.interval_seconds)}, and these datasets"
                f" have bars of {format_interval(interval_seconds)}: name datasets of the study's interval.",
                field="study",
            )
        given = _check_bundles(line, bundles or {}, chosen)
        trained = chosen.keys() - given.keys()
        if trained:
            lines.build_recipe(named_line, parameters)
        for coin in trained:
            runs.require_trainable(coin, chosen[coin])
        seed = DEFAULT_SEED if seed is None else require_seed(seed)
        with audit.locked():
            for dataset in chosen.values():  # it may have been withdrawn meanwhile
                dataset.refresh_from_db()
                candle_checks.require_passed(dataset)
            if purpose == Purpose.INHERITED and pointer.get_current() is not None:
                raise Conflict("The service has its first pointer already; launch a candidate instead.")
            release = Release(
                line=line,
                purpose=purpose,
                interval_seconds=interval_seconds,
                parameters=parameters,
                seed=seed,
                study=study,
                best_of=requested.best_of,
                launched_by=actor.name,
                is_reproduced=reproduce,
            )
            pointer.require_interval(release)
            _store(release, chosen, given, actor)
            transaction.on_commit(lambda: settle.advance_quietly(release.pk))
    return release


def _choose_best(
    study: Study, line: str, parameters: Mapping[str, Any], seed: int | None
) -> tuple[dict[str, Any], int]:
    """The parameters and the seed of the study's best trial. Raises InvalidInput for others, Conflict without a trial."""
    if line != study.line:
        raise InvalidInput(f"{study} is of the line {study.line}, not of {line[:32]}.", field="line")
    if parameters or seed is not None:
        raise InvalidInput(
            f"Parameters and seed are those of the best trial of {study}: leave them out, or launch without a study.",
            field="study",
        )
    best = results.require_best(study)
    return results.list_best_parameters(study, best), study.seed


def _store(
    release: Release, datasets: Mapping[Coin, Dataset], bundles: Mapping[Coin, Bundle], actor: Actor
) -> None:
    release.policy = policies.policy_in_force()
    trained = len(datasets) - len(bundles)
    release.budget = runs.open_budget(runs_expected=max(1, 2 * trained if release.is_reproduced else trained))
    release.deadline_at = timezone.now() + timedelta(seconds=settings.RELEASE_DEADLINE_SECONDS)
    release.origin = correlation.capture()
    release.save(force_insert=True)
    ReleaseStatus.objects.create(release=release)
    for coin, dataset in datasets.items():
        ReleaseCoin.objects.create(release=release, coin=coin, dataset=dataset, bundle=bundles.get(coin))
    detail: dict[str, Any] = {
        "line": release.line,
        "purpose": release.purpose,
        "interval_seconds": release.interval_seconds,
        "parameters": release.parameters,
        "seed": release.seed,
        "is_reproduced": release.is_reproduced,
        "policy": release.policy.number,
        "datasets": {coin.symbol: dataset.digest for coin, dataset in datasets.items()},
        "bundles": {coin.symbol: bundle.digest for coin, bundle in bundles.items()},
    }
    if release.study_id is not None:
        detail |= {"study": release.study_id, "best_of": release.best_of}
    audit.record("release.launched", release, actor=actor, detail=detail)


def _choose_datasets(named: Mapping[str, Dataset], study: Study | None) -> dict[Coin, Dataset]:
    coins = list_required_coins()
    if not coins:
        raise InvalidInput("There is no required coin: a release would be empty.")
    if unknown := sorted(set(named) - {coin.symbol for coin in coins}):
        raise InvalidInput(
            f"{', '.join(unknown)}: not a required coin, so a release does not carry it.", field="datasets"
        )
    fitting = choose_default_datasets(coins, named.values() or ([study.dataset] if study else []))
    chosen = {coin: _dataset_for(coin, named.get(coin.symbol) or fitting.get(coin)) for coin in coins}
    if len({dataset.is_simulated for dataset in chosen.values()}) > 1:
        datasets = ", ".join(
            f"{coin}'s dataset {dataset.pk} is {'simulated' if dataset.is_simulated else 'real'}"
            for coin, dataset in chosen.items()
        )
        raise InvalidInput(
            f"A release does not mix simulated and real candles: {datasets}. Name a dataset for each coin.",
            field="datasets",
        )
    return {coin: candle_checks.require_passed(dataset) for coin, dataset in chosen.items()}


def _find_interval(chosen: Mapping[Coin, Dataset]) -> int:
    """The bar interval of all these datasets, in seconds. Raises InvalidInput where they differ (rule 31)."""
    intervals = {dataset.interval_seconds for dataset in chosen.values()}
    if len(intervals) > 1:
        datasets = ", ".join(
            f"{coin}'s dataset {dataset.pk} has bars of {format_interval(dataset.interval_seconds)}"
            for coin, dataset in chosen.items()
        )
        raise InvalidInput(
            f"A release has one bar interval: {datasets}. Name datasets of one interval.", field="datasets"
        )
    return intervals.pop()


def choose_default_datasets(coins: Sequence[Coin], named: Iterable[Dataset] = ()) -> dict[Coin, Dataset]:
    """What a launch takes for coins whose dataset is not named: datasets of one bar interval.

    It is that of the named ones, else the service's, else its fallback's, else that of the last import.
    """
    fallback = pointer.get_fallback()
    own = pointer.find_interval_seconds() or (fallback.interval_seconds if fallback else None)
    intervals: set[int | None] = {dataset.interval_seconds for dataset in named} or {own}
    return datasets.choose_datasets(
        coins, interval_seconds=next(iter(intervals)) if len(intervals) == 1 else None
    )


def _dataset_for(coin: Coin, dataset: Dataset | None) -> Dataset:
    if dataset is None:
        raise InvalidInput(f"{coin} has no candles yet: import a dataset for it first.", field="datasets")
    if dataset.coin_id != coin.pk:
        raise InvalidInput(
            f"Dataset {dataset.pk} holds {dataset.coin}'s candles, not {coin}'s.", field="datasets"
        )
    return dataset


def _check_bundles(
    line: str, named: Mapping[str, Bundle], datasets: Mapping[Coin, Dataset]
) -> dict[Coin, Bundle]:
    """The bundles that replace a run: of the coin, of the line, and none from a simulated market on real candles."""
    by_symbol = {coin.symbol: coin for coin in datasets}
    for symbol, bundle in named.items():
        if symbol not in by_symbol:
            why = f"{symbol}: not a required coin, so a release does not carry it."
        elif bundle.coin_id != by_symbol[symbol].pk:
            why = f"{bundle} is {bundle.coin}'s, not {symbol}'s."
        elif bundle.line != line:
            why = f"{bundle} is of the line {bundle.line}; this release is of {line}."
        elif bundle.is_simulated and not datasets[by_symbol[symbol]].is_simulated:
            why = f"{bundle} was trained on a simulated market; {symbol}'s dataset is real."
        elif bundle.interval_seconds != datasets[by_symbol[symbol]].interval_seconds:
            why = (
                f"{bundle} answers for bars of {format_interval(bundle.interval_seconds)}; {symbol}'s dataset has bars of"
                f" {format_interval(datasets[by_symbol[symbol]].interval_seconds)}."
            )
        elif bundle.dataset is not None and bundle.dataset.is_withdrawn:
            why = f"{bundle} was trained on dataset {bundle.dataset.pk}, which was withdrawn."
        else:
            continue
        raise InvalidInput(why, field="bundles")
    return {by_symbol[symbol]: bundle for symbol, bundle in named.items()}


def _check_purpose(line: Line, purpose: Purpose) -> None:
    if line.recipe == FLAT_LINE and purpose != Purpose.FALLBACK:
        raise InvalidInput(
            f"{line} always answers neutral, so it can only be a fallback: launch it with the purpose"
            f" {Purpose.FALLBACK}.",
            field="purpose",
        )
