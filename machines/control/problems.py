"""What about machines calls for a person. Without a configured machine, nothing is asked."""

from collections.abc import Iterator
from datetime import timedelta

from django.utils import timezone

from machines.configuration import get_configuration
from machines.control import costs, demand
from machines.control.decide import LEAST_SECONDS
from machines.control.lives import list_open
from machines.models import ControllerTurn
from machines.rules import Market, compute_affordable_seconds

LATE_SECONDS = 60
"""Beyond its bound by more than this, a machine should have been stopped, and was not."""
UNANSWERED = timedelta(minutes=5)


def find_overdue() -> Iterator[str]:
    """A machine beyond its bound, or one that nobody can look at. The sentences hold no figures that change."""
    if get_configuration() is None:
        return
    open_lives = list(list_open())
    for machine in open_lives:
        if machine.age_seconds > machine.allowed_seconds + LATE_SECONDS:
            yield f"{str(machine).capitalize()} runs beyond its bound of {machine.allowed_seconds:,} seconds."
    turn = ControllerTurn.objects.first()
    since = turn.failing_since if turn is not None and open_lives else None
    if since is not None and abs(timezone.now() - since) > UNANSWERED:
        yield f"The cloud has not answered since {since:%Y-%m-%d %H:%M}Z, and a machine may run there."


def find_limit_reached() -> str | None:
    """That runs wait because the month's money is spent; None where it is not, or nothing waits."""
    configuration = get_configuration()
    if configuration is None or not demand.list_waiting_runs().exists():
        return None
    price = costs.find_price(configuration.instance_type, configuration.region, Market.ON_DEMAND)
    left = costs.compute_month_left(timezone.now())
    if price is None or compute_affordable_seconds(left, price) >= LEAST_SECONDS:
        return None
    return "Runs wait for a machine, and the monthly limit of machines is reached."
