"""What people may do about machines: start and stop one by hand, set prices and the monthly limit."""

import re
from decimal import Decimal

from django.conf import settings
from django.db import IntegrityError
from django.utils import timezone

from accounts.decisions import decision
from accounts.roles import Actor, Role
from audit import services as audit
from common.errors import Conflict, InvalidInput, NotFound
from common.formatting import format_usd
from machines.configuration import require_configuration
from machines.control import costs, lives
from machines.control.decide import LEAST_SECONDS
from machines.models import Machine, MachinePrice, MonthlyLimit
from machines.rules import MAX_MONTHLY_USD, MAX_USD_PER_HOUR, Market, compute_affordable_seconds

_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,31}")


def find_machine(pk: int) -> Machine:
    """Raises NotFound."""
    machine = Machine.objects.filter(pk=pk).first()
    if machine is None:
        raise NotFound(f"There is no machine {pk}.")
    return machine


def start_machine(*, actor: Actor, reason: str) -> Machine:
    """Ask for a machine as an operator; the controller starts it within seconds, and stops it when it is idle.

    It is bound by the limits of one launch, and by the monthly limit. Raises NotAllowed, InvalidInput, and Conflict where no
    machine is configured, one has not ended yet, no price is known, or the monthly limit is reached.
    """
    requested = Machine(instance_type=settings.MACHINE_TYPE)
    with decision(
        "machine.start", requested, actor=actor, role=Role.OPERATOR, to="start a machine", reason=reason
    ) as reason:
        configuration = require_configuration()
        market = configuration.markets[0]
        price = costs.find_price(configuration.instance_type, configuration.region, market)
        if price is None:
            raise Conflict(
                f"No price is known for {configuration.instance_type} in {configuration.region}: an approver sets it first."
            )
        usd = min(Decimal(settings.RELEASE_SPENDING_LIMIT_USD), costs.compute_month_left(timezone.now()))
        allowed = min(settings.RELEASE_TIME_LIMIT_SECONDS, compute_affordable_seconds(usd, price))
        if allowed < LEAST_SECONDS:
            raise Conflict(
                f"{format_usd(max(usd, Decimal(0)))} are left, by the monthly limit and that of a launch: too little to"
                " start a machine."
            )
        try:
            with audit.locked():
                _require_none_open()
                return lives.request(
                    configuration,
                    market=market,
                    usd_per_hour=price,
                    allowed_seconds=allowed,
                    actor=actor,
                    reason=reason,
                )
        except IntegrityError as taken:  # by the controller, at this moment
            raise Conflict("A machine was requested at this moment: there is one at a time.") from taken


def _require_none_open() -> None:
    machine = Machine.objects.exclude(slot=None).first()
    if machine is not None:
        raise Conflict(f"{machine} is {machine.state}: there is one at a time. Stop it first.")


def stop_machine(machine: Machine, *, actor: Actor, reason: str) -> Machine:
    """Ask to stop a machine, as an operator or an approver; what waits now starts none again.

    Its runs resume from their checkpoints on another worker. Raises NotAllowed, InvalidInput and Conflict.
    """
    with (
        decision(
            "machine.stop",
            machine,
            actor=actor,
            role=(Role.OPERATOR, Role.APPROVER),
            to="stop a machine",
            reason=reason,
        ) as reason,
        audit.locked(),
    ):
        machine.refresh_from_db()
        if machine.has_ended:
            raise Conflict(f"{machine} has already ended: it is {machine.state}.")
        if machine.stop_asked_at is not None:
            raise Conflict(f"{machine.stop_asked_by} has already asked to stop {machine}.")
        lives.ask_to_stop(machine, actor=actor, reason=reason)
    return machine


def set_price(
    *, instance_type: str, region: str, market: str, usd_per_hour: Decimal, actor: Actor, reason: str
) -> MachinePrice:
    """Set what an hour costs, as an approver; machines that were requested keep their price.

    Raises NotAllowed and InvalidInput.
    """
    price = MachinePrice(instance_type=instance_type[:32], region=region[:32], market=market[:12])
    with decision(
        "machineprice.set", price, actor=actor, role=Role.APPROVER, to="set a price", reason=reason
    ) as reason:
        for field, value in (("instance_type", instance_type), ("region", region)):
            if not _NAME.fullmatch(value):
                raise InvalidInput(
                    f"{value!r} is none, which is written as in g5.xlarge or us-east-1.", field=field
                )
        if market not in set(Market):
            raise InvalidInput(f"{market!r} is no market; choose {' or '.join(Market)}.", field="market")
        if not (usd_per_hour.is_finite() and 0 < usd_per_hour <= MAX_USD_PER_HOUR):
            raise InvalidInput(
                f"A price is above 0 and at most {MAX_USD_PER_HOUR} US dollars per hour.",
                field="usd_per_hour",
            )
        with audit.locked():
            price.usd_per_hour, price.set_by, price.reason = round(usd_per_hour, 4), str(actor), reason
            if price.usd_per_hour <= 0:
                raise InvalidInput("A price has at most four decimals.", field="usd_per_hour")
            price.save(force_insert=True)
            detail = {"usd_per_hour": str(price.usd_per_hour)}
            audit.record("machineprice.set", price, actor=actor, reason=reason, detail=detail)
    return price


def set_monthly_limit(usd: Decimal, *, actor: Actor, reason: str) -> MonthlyLimit:
    """Set what all machines of a month may cost, as an approver; with 0, none is started.

    Raises NotAllowed and InvalidInput.
    """
    limit = MonthlyLimit()
    with decision(
        "monthlylimit.set", limit, actor=actor, role=Role.APPROVER, to="set the monthly limit", reason=reason
    ) as reason:
        if not (usd.is_finite() and 0 <= usd <= MAX_MONTHLY_USD):
            raise InvalidInput(f"A monthly limit is from 0 to {MAX_MONTHLY_USD:,} US dollars.", field="usd")
        with audit.locked():
            limit.usd, limit.set_by, limit.reason = round(usd, 2), str(actor), reason
            limit.save(force_insert=True)
            audit.record(
                "monthlylimit.set", limit, actor=actor, reason=reason, detail={"usd": str(limit.usd)}
            )
    return limit


def list_prices() -> list[MachinePrice]:
    """The price in force of each instance type, region and market."""
    newest: dict[tuple[str, str, str], MachinePrice] = {}
    for price in MachinePrice.objects.order_by("pk"):
        newest[price.instance_type, price.region, price.market] = price
    return [newest[key] for key in sorted(newest)]
