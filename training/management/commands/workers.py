from typing import Any

from common.commands import GateCommand, serialize
from training.api.workers import Workers


class Command(GateCommand):
    help = "List the workers: whether each is alive, its queues, device and versions."

    def answer(self, **options: Any) -> dict[str, Any]:
        return {"workers": [serialize(Workers.Output, worker) for worker in Workers.queryset.all()]}

    def format_answer(self, answer: dict[str, Any]) -> str:
        lines = [_format_worker(worker) for worker in answer["workers"]]
        return "\n".join(lines) or "No worker has reported: start one with `make up`."


def _format_worker(worker: dict[str, Any]) -> str:
    memory = f", {worker['memory_bytes'] / 2**30:.0f} GiB" if worker["memory_bytes"] else ""
    cuda = f", CUDA {worker['cuda_version']}" if worker["cuda_version"] else ""
    return (
        f"{worker['name']:<28} {'alive' if worker['is_alive'] else 'silent':<7}"
        f" {'+'.join(worker['queues'])} × {worker['slots']}   {worker['device']}{memory}{cuda}"
        f"   torch {worker['torch_version']}   code {worker['code_version']}"
        f"   ${float(worker['rate_usd_per_hour']):.3f}/h   last heard {worker['last_heard_at']}"
    )
