"""Which machine the settings name. Without one, nothing of this app asks the database or the cloud anything."""

from collections.abc import Sequence
from dataclasses import dataclass

from django.conf import settings

from common.errors import Conflict
from machines.rules import Market


@dataclass(frozen=True)
class Configuration:
    region: str
    instance: str
    """The given instance, which is started and stopped; empty where machines are launched."""
    template: str
    """The launch template that machines are launched from, by id or name."""
    instance_type: str
    markets: Sequence[Market]
    idle_seconds: float
    start_seconds: float
    look_seconds: float

    def describe(self) -> str:
        source = f"the instance {self.instance}" if self.instance else f"the launch template {self.template}"
        return f"{self.instance_type} in {self.region}, from {source}"


def get_configuration() -> Configuration | None:
    """The configured machine; None where there is none. The settings were checked at the start."""
    if not settings.MACHINE_REGION:
        return None
    # A given instance was bought in one market, for good.
    markets = [Market.ON_DEMAND] if settings.MACHINE_INSTANCE else map(Market, settings.MACHINE_MARKETS)
    return Configuration(
        region=settings.MACHINE_REGION,
        instance=settings.MACHINE_INSTANCE,
        template=settings.MACHINE_TEMPLATE,
        instance_type=settings.MACHINE_TYPE,
        markets=tuple(markets),
        idle_seconds=settings.MACHINE_IDLE_SECONDS,
        start_seconds=settings.MACHINE_START_SECONDS,
        look_seconds=settings.MACHINE_LOOK_SECONDS,
    )


def require_configuration() -> Configuration:
    """Raises Conflict where no machine is configured."""
    configuration = get_configuration()
    if configuration is None:
        raise Conflict("No machine is configured: set CRPBOT_MACHINE_REGION (docs/operations/machines.md).")
    return configuration
