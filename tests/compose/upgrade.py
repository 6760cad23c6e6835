"""The upgrade of docs/operations/upgrade.md: two versions side by side while bots stream, and people decide.

Every answer that a bot or a person gets meanwhile is counted, and every decision that was answered must be in the history.
"""

import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from mlcore.data.simulate import COINS
from tests.compose import image, next_version
from tests.compose.bot import STREAM_ENDED, Bot, build_wheel, unpack_wheel
from tests.compose.engine import Engine
from tests.compose.errors import TrialFailed
from tests.compose.report import Report
from tests.compose.service import Json, Service, wait_until
from tests.compose.story import Story

HEALTHY_SECONDS = 300
PARALLEL_SECONDS = 40
HEARTBEAT_SECONDS = 40
SCALED = ("web", "cpu-worker")
ASKED = ("/healthz", "/api/v1/active/", "/api/v1/active/signed/", "/api/v1/active/keys/")


def build_add(counts: Mapping[str, int]) -> list[str]:
    """Compose's words to start as many new containers of each service as it has, beside them."""
    scale = [word for name, count in counts.items() for word in ("--scale", f"{name}={2 * count}")]
    return ["up", "-d", "--no-deps", "--no-recreate", *scale, *counts]


class Upgrade:
    """Each method is a step of the report. The first bot has the first version's client; another is added to `bots`."""

    def __init__(
        self, engine: Engine, service: Service, story: Story, bots: list[Bot], report: Report
    ) -> None:
        self._engine, self._service, self._story = engine, service, story
        self._bots, self._report = bots, report
        self._old: list[str] = []
        self._said = len(bots[0].other_lines)
        """How many lines the first bot logged before."""

    def run(self, folder: Path) -> None:
        step, tree = self._report.step, folder / "next"
        with step("the next version: a copy of the tree with a migration and a newer protocol") as note:
            next_version.write(tree)
            note(image.build(self._engine, folder, next_version.VERSION, tree))
        start, before = time.monotonic(), self._list_moves()
        decided: list[int] = []
        with self._count_answers() as answers:
            with step("the next version's migrations, while the first version serves") as note:
                note(self._migrate())
                decided += self._decide()
            with step("a second web process and worker of the next version beside each of the first") as note:
                note(self._add_next())
            with step("a bot with the next version's client, beside the other") as note:
                note(self._start_next_bot(folder, tree))
            with step("both versions side by side: pins, restores, and a release trained") as note:
                note(self._run_in_parallel(decided))
            with step("the first version stopped, and the rest replaced") as note:
                note(self._remove_old())
                decided += self._decide()
        with step("what bots and people saw of the upgrade") as note:
            note(self._judge(start, before, decided, answers))

    def _migrate(self) -> str:
        self._engine.environment["CRPBOT_CODE_VERSION"] = next_version.VERSION
        said = self._engine.compose("run", "--rm", "-T", "migrate")
        applied = [line.split()[1] for line in said.splitlines() if line.strip().startswith("Applying")]
        if not applied:
            raise TrialFailed(f"The second image applied no migration:\n{said}")
        return f"applied {', '.join(name.rstrip('.') for name in applied)}"

    def _add_next(self) -> str:
        self._old = list(self._service.list_containers(*SCALED))
        self._engine.compose(*build_add({name: len(self._service.list_containers(name)) for name in SCALED}))
        wait_until(self._service.is_healthy, "both versions are healthy", HEALTHY_SECONDS)
        return self._count_versions()

    def _count_versions(self) -> str:
        images = Counter(
            container["Config"]["Image"].rpartition(":")[2]
            for container in self._service.list_containers(*SCALED).values()
        )
        if set(images) != {"0.1.0", next_version.VERSION}:
            raise TrialFailed(f"There are not two versions side by side, but {dict(images)}.")
        return ", ".join(f"{count} containers of {version}" for version, count in sorted(images.items()))

    def _start_next_bot(self, folder: Path, tree: Path) -> str:
        wheel = build_wheel(tree, folder / "next-bot" / "dist")
        client = unpack_wheel(wheel, folder / "next-bot" / "client")
        bot = self._story.build_bot(folder / "next-bot" / "models", PYTHONPATH=str(client))
        bot.start()
        bot.wait_for(self._story.candidate, 60)
        self._bots.append(bot)
        return f"{wheel.name}; its first decision comes from release {bot.decided[-1].release}"

    def _run_in_parallel(self, decided: list[int]) -> str:
        release, before = self._story.launch("v7_fixed", epochs=6, seed=23), len(decided)
        start = time.monotonic()
        while time.monotonic() - start < PARALLEL_SECONDS:
            decided += self._decide()
        state = self._story.wait_for_state(release, "awaiting_approval", "rejected")
        runs: list[Json] = self._service.ask("olivia", "GET", "runs/?ordering=-id")["results"][: len(COINS)]
        if any(run["state"] != "succeeded" for run in runs):
            raise TrialFailed(f"Runs of release {release}: {[run['state'] for run in runs]}")
        trained = Counter(run["code_version"] for run in runs)
        by = ", ".join(f"{count} runs by {version}" for version, count in sorted(trained.items()))
        return (
            f"{len(decided) - before} moves, each followed by both bots; release {release} is {state}: {by}"
        )

    def _decide(self) -> list[int]:
        """Pin and restore; both bots follow. Returns the revisions that the answers named."""
        revisions = []
        for decide, release in (
            (self._story.post_pin, self._story.fallback),
            (self._story.post_restore, self._story.candidate),
        ):
            revisions.append(decide())
            for bot in self._bots:
                bot.wait_for(release, 30)
        return revisions

    def _remove_old(self) -> str:
        self._engine.docker("stop", *self._old)
        self._engine.docker("rm", *self._old)
        self._engine.compose("up", "--detach", "--no-build")
        wait_until(self._service.is_healthy, "everything is healthy", HEALTHY_SECONDS)
        self._service.manage("verify_audit")
        return f"{len(self._service.list_containers())} containers, all of {next_version.VERSION}"

    @contextmanager
    def _count_answers(self) -> Iterator[Counter[tuple[str, int]]]:
        """Ask as a bot and as a person, again and again, through the proxy; counts the answers by address and status."""
        answers, is_over = Counter[tuple[str, int]](), threading.Event()

        def ask() -> None:
            while not is_over.wait(0.2):
                for path in ASKED:
                    answers[path, self._service.get_status(path, "bot")] += 1
                answers["/api/v1/releases/", self._service.get_status("/api/v1/releases/", "olivia")] += 1

        asking = threading.Thread(target=ask)
        asking.start()
        try:
            yield answers
        finally:
            is_over.set()
            asking.join()

    def _list_moves(self) -> list[int]:
        results: list[Json] = self._service.ask("olivia", "GET", "moves/")["results"]
        return [int(move["revision"]) for move in results]

    def _judge(
        self, start: float, before: list[int], decided: list[int], answers: Counter[tuple[str, int]]
    ) -> str:
        failed = {answer: count for answer, count in answers.items() if answer[1] != 200}
        if failed:
            raise TrialFailed(f"{failed} of {answers.total()} answers were no success.")
        for bot in self._bots:
            if doubtful := bot.list_doubtful_since(max(start, bot.first_model_at)):
                raise TrialFailed(f"A bot decided with a doubt: {doubtful[:3]}; {bot.other_lines[-5:]}")
        first, *others = self._bots
        if logged := [
            *first.list_problems(self._said),
            *(line for bot in others for line in bot.list_problems()),
        ]:
            raise TrialFailed(f"Bots logged {len(logged)} problems: {logged[:3]}")
        expected = list(range(max(before) + 1, max(before) + 1 + len(decided)))
        if decided != expected or self._story.get_revision() != expected[-1]:
            raise TrialFailed(f"Revisions {decided} were answered, and {expected} expected.")
        reported: list[Json] = []

        def all_report() -> bool:
            reported[:] = self._service.ask("olivia", "GET", "bots/?state=current")["results"]
            return len(reported) == len(self._bots) and not any(bot["last_error"] for bot in reported)

        wait_until(all_report, f"{len(self._bots)} bots report no error", HEARTBEAT_SECONDS)
        ended = sum(bool(STREAM_ENDED.match(line)) for bot in self._bots for line in bot.other_lines)
        count = sum(each.at >= start for bot in self._bots for each in bot.decided)
        protocols = sorted({bot["protocol"] for bot in reported})
        return (
            f"{answers.total():,} answers, all 200; {count:,} decisions of bots, from the first model on none neutral and"
            " none in doubt;"
            f" {len(decided)} of {len(decided)} moves in the history; bots report in protocols {protocols},"
            f" and logged no problem; {ended} of their streams ended with their process, and went on from another"
        )
