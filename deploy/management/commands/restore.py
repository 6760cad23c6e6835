from typing import Any

from deploy import services
from deploy.management.decisions import SwapCommand


class Command(SwapCommand):
    help = "Bring back a release that was live before."

    def answer(self, **options: Any) -> dict[str, Any]:
        release = self.release(options)
        services.restore(
            release, actor=self.actor(options), reason=options["reason"], revision=self.seen(options)
        )
        return self.after(release)
