from typing import Any

from deploy import services
from deploy.management.decisions import DecisionCommand


class Command(DecisionCommand):
    help = "Make a release on standby the fallback that a pin holds the bots on."

    def answer(self, **options: Any) -> dict[str, Any]:
        release = self.release(options)
        services.register_fallback(release, actor=self.actor(options), reason=options["reason"])
        return self.after(release)
