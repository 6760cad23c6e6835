"""Workers: which are alive, and what they are."""

from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe

from common.pages import render_live
from training.jobs.worker_registry import list_alive_workers
from training.models import TrainingRun, Worker
from training.rules import JobState

EVERY_SECONDS = 3
QUEUES = ("training", "gates")


@require_safe
def index(request: HttpRequest) -> HttpResponse:
    alive = list_alive_workers()
    running = TrainingRun.objects.filter(state=JobState.RUNNING).select_related("coin")
    serving = {queue for worker in alive for queue in worker.queues.split(",")}
    context = {
        "workers": Worker.objects.all(),
        "alive": {worker.pk for worker in alive},
        "unserved": [queue for queue in QUEUES if queue not in serving],
        "running": running,
    }
    return render_live(
        request, "training/workers.html", "training/_workers.html", context, every_seconds=EVERY_SECONDS
    )
