from typing import Any

from deploy import services
from deploy.management.decisions import SwapCommand


class Command(SwapCommand):
    help = "Let the bots use a release that passed every gate."

    def answer(self, **options: Any) -> dict[str, Any]:
        release = self.release(options)
        services.approve(
            release, actor=self.actor(options), reason=options["reason"], revision=self.seen(options)
        )
        return self.after(release)
