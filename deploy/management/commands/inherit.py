from typing import Any

from deploy import services
from deploy.management.decisions import DecisionCommand


class Command(DecisionCommand):
    help = "Begin with what the bot runs today: the first revision."

    def answer(self, **options: Any) -> dict[str, Any]:
        release = self.release(options)
        services.inherit(release, actor=self.actor(options), reason=options["reason"])
        return self.after(release)
