from typing import Any

from deploy import services
from deploy.management.decisions import DecisionCommand


class Command(DecisionCommand):
    help = "Refuse a release that awaits approval."

    def answer(self, **options: Any) -> dict[str, Any]:
        release = self.release(options)
        services.decline(release, actor=self.actor(options), reason=options["reason"])
        return self.after(release)
