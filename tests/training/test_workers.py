"""Real workers over a real Redis: they describe themselves, take runs, and a killed one costs nobody a run."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from datetime import timedelta
from typing import Any

import psutil
import pytest
import redis
from django.core.management import call_command
from django.utils import timezone

from tests import factories
from tests.processes import REPOSITORY, StartWorker, environment, wait_until
from training import worker as runner
from training.jobs import queue, worker_registry
from training.models import TrainingRun, Worker
from training.rules import JobState
from training.services import estimates

pytestmark = pytest.mark.processes


@pytest.fixture
def store() -> None:
    """The settings' own, which the processes share."""


def state_of(run: TrainingRun) -> str:
    return TrainingRun.objects.get(pk=run.pk).state


def resend(run: TrainingRun) -> bool:
    """What reconcile does every few seconds: send what is due again. True once the run has ended."""
    now = timezone.now()
    for due in TrainingRun.objects.due(now, resend_after=now - timedelta(seconds=1)).filter(pk=run.pk):
        queue.enqueue(due)
    return TrainingRun.objects.get(pk=run.pk).has_ended


def loads_torch(process: psutil.Process) -> bool:
    return any("libtorch" in mapped.path for mapped in process.memory_maps())


def test_a_worker_describes_itself_trains_what_is_launched_and_signs_off(start_worker: StartWorker) -> None:
    worker = start_worker("training,gates", slots=1, name="gpu")
    row = wait_until(lambda: Worker.objects.first(), what="the worker's description")
    assert (row.name, row.queues, row.slots) == ("gpu@test", "gates,training", 1)
    assert row.device
    assert row.memory_bytes > 2**30
    assert row.torch_version.startswith("2.13.0")
    assert [alive.name for alive in worker_registry.list_alive_workers("training")] == ["gpu@test"]

    run = factories.run(factories.market(), epochs=2)
    wait_until(lambda: TrainingRun.objects.get(pk=run.pk).has_ended, what="the run's end")
    run.refresh_from_db()
    assert (run.state, run.failure, run.worker_name) == (JobState.SUCCEEDED, "", "gpu@test")
    assert run.enqueued_at is not None

    children = worker.children
    assert any(loads_torch(child) for child in children)
    assert not loads_torch(psutil.Process(worker.popen.pid))

    worker.stop()
    assert not Worker.objects.exists()


@pytest.mark.long
def test_after_a_kill_no_child_is_left_and_the_next_worker_resumes(
    start_worker: StartWorker,
) -> None:
    epochs = 20
    dataset = factories.market(bars=2000)
    undisturbed = factories.run(dataset, epochs=epochs, patience=50, batch_size=16, is_sent=False)
    first = start_worker(name="first")
    run = factories.run(dataset, epochs=epochs, patience=50, batch_size=16)
    wait_until(lambda: run.epoch_rows.count() >= 2 or state_of(run) == JobState.FAILED, what="two epochs")
    children = first.children
    first.kill()
    assert state_of(run) == JobState.RUNNING
    wait_until(lambda: not any(child.is_running() for child in children), what="the children's death")
    done = run.epoch_rows.count()

    start_worker(name="second")
    wait_until(lambda: resend(run), what="the run's end")
    run.refresh_from_db()
    assert (run.state, run.failure, run.worker_name) == (JobState.SUCCEEDED, "", "second@test")
    rows = list(run.epoch_rows.values_list("number", "attempt"))
    assert [number for number, _ in rows] == list(range(1, epochs + 1))
    assert [attempt for _, attempt in rows] == [1] * done + [run.attempt] * (epochs - done)
    runner.train(undisturbed.pk, worker_name="here@test", device="cpu")
    undisturbed.refresh_from_db()
    assert run.bundle == undisturbed.bundle


LAUNCHES = """
import django, time
django.setup()
from tests import factories
dataset = factories.market(bars=1100)
started = time.monotonic()
for seed in range(3):
    factories.run(dataset, seed=seed)
print(time.monotonic() - started)
"""


@pytest.mark.parametrize("how", ["nobody listens", "nobody answers"])
def test_launching_is_not_held_up_by_an_absent_broker_and_nothing_is_lost(committed: None, how: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1] if how == "nobody answers" else 9
        environ = environment(CRPBOT_REDIS_URL=f"redis://127.0.0.1:{port}/0")
        launched = subprocess.run(
            [sys.executable, "-c", LAUNCHES],
            cwd=REPOSITORY,
            env=environ,
            capture_output=True,
            text=True,
            check=True,
        )
    assert float(launched.stdout) < 5
    assert "the broker does not answer" in launched.stderr
    now = timezone.now()
    assert TrainingRun.objects.due(now, resend_after=now - timedelta(hours=1)).count() == 3


class TestTheQueue:
    def test_gets_a_message_for_a_launched_run_once_it_is_committed(
        self, broker: redis.Redis, committed: None
    ) -> None:
        run = factories.run(factories.market(bars=1100))
        run.refresh_from_db()
        assert run.enqueued_at is not None
        assert broker.llen("training") == 1
        message = json.loads(broker.lrange("training", 0, 0)[0])
        assert message["headers"]["task"] == "training.train"
        assert str(run.pk) in message["headers"]["argsrepr"]

    def test_gets_none_for_a_run_that_is_trained_here_and_now(
        self, broker: redis.Redis, committed: None
    ) -> None:
        run = factories.run(factories.market(bars=1100), is_sent=False)
        assert broker.llen("training") == 0
        now = timezone.now()
        assert run not in TrainingRun.objects.due(now, resend_after=now - timedelta(seconds=20))

    def test_a_second_message_is_sent_only_when_the_first_was_lost(
        self, broker: redis.Redis, committed: None
    ) -> None:
        run = factories.run(factories.market(bars=1100))
        TrainingRun.objects.update(enqueued_at=timezone.now() - timedelta(minutes=1))
        assert not resend(run)
        assert broker.llen("training") == 2
        TrainingRun.objects.update(state=JobState.RUNNING, lease_until=timezone.now() + timedelta(minutes=1))
        TrainingRun.objects.update(enqueued_at=timezone.now() - timedelta(minutes=1))
        resend(run)
        assert broker.llen("training") == 2


@pytest.mark.django_db
class TestTheWorkersCommand:
    def worker(self, name: str, *, seconds_ago: float, **columns: Any) -> None:
        heard = timezone.now() - timedelta(seconds=seconds_ago)
        Worker.objects.create(
            **{
                "name": name,
                "queues": "training,gates",
                "slots": 1,
                "device": "CPU",
                "torch_version": "2.13.0",
                "code_version": "1",
                "rate_usd_per_hour": "1.006",
                "started_at": heard,
                "last_heard_at": heard,
                **columns,
            }
        )

    def test_tells_the_living_from_the_silent_with_device_and_versions(self, capsys: Any) -> None:
        gpu = {"device": "NVIDIA A10G", "memory_bytes": 24 * 2**30, "cuda_version": "12.8"}
        self.worker("gpu@a", seconds_ago=1, **gpu)
        self.worker("cpu@b", seconds_ago=100)
        call_command("workers")
        cpu_line, gpu_line = sorted(capsys.readouterr().out.splitlines())
        assert "alive" in gpu_line
        assert "NVIDIA A10G, 24 GiB, CUDA 12.8" in gpu_line
        assert "torch 2.13.0" in gpu_line
        assert "silent" in cpu_line

    def test_answers_a_program_in_json(self, capsys: Any) -> None:
        self.worker("gpu@a", seconds_ago=1)
        call_command("workers", "--json")
        [worker] = json.loads(capsys.readouterr().out)["workers"]
        assert (worker["name"], worker["is_alive"]) == ("gpu@a", True)
        assert worker["queues"] == ["training", "gates"]

    def test_says_what_to_do_when_there_is_none(self, capsys: Any) -> None:
        call_command("workers")
        assert "No worker" in capsys.readouterr().out


def test_a_machine_whose_torch_cannot_be_asked_is_taken_as_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_registry, "is_built_for_gpus", lambda: True)
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    assert worker_registry.probe_device()["device"] == "CPU"


def test_torch_is_asked_only_where_it_was_built_for_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = """
import torch
print(any((torch.version.cuda, torch.version.hip)))
"""
    said = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True).stdout
    assert str(worker_registry.is_built_for_gpus()) == said.strip()
    started = []
    monkeypatch.setattr(subprocess, "run", lambda *words, **options: started.append(words))
    monkeypatch.setattr(worker_registry, "is_built_for_gpus", lambda: False)
    assert worker_registry.probe_device()["device"] == "CPU"
    assert started == []


def test_no_child_is_forked_while_the_description_is_being_written() -> None:
    """It would inherit SQLite's locks in the middle of a query, and hang for ever at its first one."""
    began, ended = threading.Event(), threading.Event()

    def write_slowly() -> None:
        with worker_registry.registration_lock:
            began.set()
            time.sleep(0.3)
            ended.set()

    writer = threading.Thread(target=write_slowly)
    writer.start()
    began.wait(5)
    child = os.fork()
    if child == 0:
        os._exit(0 if ended.is_set() and worker_registry.registration_lock.acquire(timeout=1) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    writer.join()


def test_asking_for_a_launch_imports_no_torch() -> None:
    """What the web does with training must not cost it torch's memory."""
    script = (
        "import django, sys; django.setup();"
        "from training import admin, artifact_store, tasks;"
        "from training.services import bundles, datasets, estimates, imported_models, runs;"
        "from training.jobs import queue, worker_registry;"
        "sys.exit('torch' in sys.modules or 'sklearn' in sys.modules or 'ccxt' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, env=environment(), check=False)
    assert found.returncode == 0


@pytest.mark.django_db
def test_an_estimate_without_workers_still_answers() -> None:
    assert estimates.estimate("v7_fixed", [factories.market(bars=1100)], {}).usd > 0
