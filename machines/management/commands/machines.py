from decimal import Decimal, InvalidOperation
from typing import Any

from django.core.management.base import CommandParser
from django.utils import timezone

from accounts.commands import ActingCommand
from common.commands import serialize
from common.errors import InvalidInput
from common.formatting import align_columns, format_duration, format_usd
from machines import services
from machines.api import MachinePrices, Machines, MonthlyLimits
from machines.cloud.user_data import build_user_data
from machines.configuration import require_configuration
from machines.control import costs
from machines.models import ControllerTurn
from machines.rules import Market

SHOWN = 20


class Command(ActingCommand):
    help = (
        "List the machines with what each cost, start or stop one, show or set prices and the monthly limit, or print the"
        " script with which a given instance becomes a worker."
    )

    def add_own_arguments(self, parser: CommandParser) -> None:
        actions = ["list", "start", "stop", "prices", "price", "limit", "user-data"]
        parser.add_argument("do", choices=actions, nargs="?", default="list")
        parser.add_argument("machine", nargs="?", type=int, help="for stop: its number")
        parser.add_argument("--reason", default="", help="recorded in the audit history")
        parser.add_argument("--type", default="g5.xlarge", help="for price: the instance type (g5.xlarge)")
        parser.add_argument("--region", default="us-east-1", help="for price: the region (us-east-1)")
        parser.add_argument("--market", default=str(Market.ON_DEMAND), help="for price: spot or on-demand")
        parser.add_argument("--usd", default="", help="for price: US dollars per hour; for limit: per month")

    def answer(self, **options: Any) -> dict[str, Any]:
        match options["do"]:
            case "list":
                return self._list()
            case "prices":
                return {"prices": [serialize(MachinePrices.Output, each) for each in services.list_prices()]}
            case "limit" if not options["usd"]:
                return self._describe_month()
            case "user-data":
                require_configuration()
                price = costs.find_price(options["type"], options["region"], Market.ON_DEMAND) or Decimal(0)
                return {"user_data": build_user_data(usd_per_hour=price, allowed_seconds=5400)}
        return self._decide(options)

    def _decide(self, options: dict[str, Any]) -> dict[str, Any]:
        actor, reason = self.actor(options), options["reason"]
        match options["do"]:
            case "start":
                machine = services.start_machine(actor=actor, reason=reason)
                return {"machines": [serialize(Machines.Output, machine)]}
            case "stop":
                if options["machine"] is None:
                    raise InvalidInput("Say which machine: `manage.py machines` shows them.", field="machine")
                machine = services.stop_machine(
                    services.find_machine(options["machine"]), actor=actor, reason=reason
                )
                return {"machines": [serialize(Machines.Output, machine)]}
            case "price":
                price = services.set_price(
                    instance_type=options["type"],
                    region=options["region"],
                    market=options["market"],
                    usd_per_hour=_read_usd(options["usd"]),
                    actor=actor,
                    reason=reason,
                )
                return {"prices": [serialize(MachinePrices.Output, price)]}
        limit = services.set_monthly_limit(_read_usd(options["usd"]), actor=actor, reason=reason)
        return {**self._describe_month(), "limit": serialize(MonthlyLimits.Output, limit)}

    def _list(self) -> dict[str, Any]:
        turn = ControllerTurn.objects.first()
        rows = [serialize(Machines.Output, machine) for machine in Machines.queryset.all()[:SHOWN]]
        said = {"said": turn.said, "problem": turn.problem} if turn is not None else {}
        return {"machines": rows, **said, **self._describe_month()}

    def _describe_month(self) -> dict[str, Any]:
        return {
            "limit_usd": str(costs.get_monthly_limit()),
            "month_usd": str(costs.sum_month(timezone.now())),
        }

    def format_answer(self, answer: dict[str, Any]) -> str:
        if "user_data" in answer:
            return str(answer["user_data"])
        lines = [_format_price(price) for price in answer.get("prices", ())]
        lines += (
            align_columns([_format_machine(machine) for machine in answer["machines"]])
            if answer.get("machines")
            else []
        )
        if "prices" in answer and not lines:
            lines.append("No price was set yet: `manage.py machines price --usd 1.006 --reason …`.")
        if answer.get("machines") == []:
            lines.append("No machine was ever requested.")
        lines += [f"{name}: {answer[name]}" for name in ("said", "problem") if answer.get(name)]
        if "limit_usd" in answer:
            spent, limit = Decimal(answer["month_usd"]), Decimal(answer["limit_usd"])
            lines.append(f"This month: {format_usd(spent)} of at most {format_usd(limit)}.")
        return "\n".join(lines)


def _read_usd(text: str) -> Decimal:
    """Raises InvalidInput."""
    try:
        return Decimal(text)
    except InvalidOperation:
        raise InvalidInput(
            f"--usd {text!r} is no amount, which is written as in 1.006.", field="usd"
        ) from None


def _format_machine(machine: dict[str, Any]) -> list[str]:
    return [
        str(machine["id"]),
        machine["state"],
        machine["instance_id"] or "—",
        f"{machine['instance_type']} {machine['market']}",
        f"{format_duration(machine['billed_seconds'])} of {format_duration(machine['allowed_seconds'])}",
        format_usd(Decimal(machine["cost_usd"])),
        machine["reason"],
    ]


def _format_price(price: dict[str, Any]) -> str:
    return (
        f"{price['instance_type']} in {price['region']}, {price['market']}: ${price['usd_per_hour']} per hour, set by"
        f" {price['set_by']}"
    )
