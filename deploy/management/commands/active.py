import json
from typing import Any

from common.commands import GateCommand
from deploy.alarms import detect
from deploy.models import PointerMove
from deploy.serving import snapshot


class Command(GateCommand):
    help = "Print what every bot must use now: the snapshot a bot fetches, and whatever is an alarm."

    def answer(self, **options: Any) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(snapshot.build_current().body)
        document["alarms"] = [
            {"name": t.name, "severity": t.severity, "sentence": t.sentence, "remedy": t.remedy}
            for t in detect.list_alarms()
        ]
        return document

    def format_answer(self, answer: dict[str, Any]) -> str:
        move = PointerMove.objects.get(revision=answer["revision"])
        what = (
            f"{answer['line']} (release {answer['release']})"
            if answer["line"]
            else "nothing: bots answer neutral"
        )
        lines = [
            f"revision {answer['revision']}: {what}, {move.action_label} by {answer['moved_by']} at {answer['moved_at']}",
            f"because: {answer['reason']}",
        ]
        lines += [f"{coin}: {model['bundle']}" for coin, model in answer["models"].items()]
        if answer["simulated"]:
            lines.append("simulated market: not for trading")
        lines += [f"ALARM: {alarm['sentence']} {alarm['remedy']}" for alarm in answer["alarms"]]
        return "\n".join(lines)
