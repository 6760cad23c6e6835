"""The controller with EC2 itself, as moto answers for it over HTTP."""

import base64
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from machines.cloud.ec2 import Ec2
from machines.cloud.protocol import CloudRefused, CloudUnavailable, Order
from machines.configuration import get_configuration
from machines.control.look import control_machines
from machines.models import ControllerTurn, Machine
from machines.rules import MachineState, Market
from tests import factories
from tests.machines.moto_ec2 import REGION, TEMPLATE, MotoEc2, age, boot, delay, reclaim
from tests.machines.world import configure, set_prices, states, the_machine
from training import worker
from training.models import TrainingRun, Worker
from training.rules import JobState
from training.services import runs

SECRET = "a-key-of-the-desk"

pytestmark = [pytest.mark.django_db, pytest.mark.slow]


@pytest.fixture(scope="module")
def server() -> Iterator[MotoEc2]:
    started = MotoEc2()
    yield started
    started.close()


@pytest.fixture
def ec2(server: MotoEc2, settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MotoEc2:
    """An EC2 with the launch template, a configured machine with prices, and a file store of the test's own."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, SECRET)
    server.prepare()
    configure(
        settings,
        MACHINE_REGION=REGION,
        MACHINE_TEMPLATE=TEMPLATE,
        MACHINE_ENDPOINT=server.endpoint,
    )
    settings.STORAGES = {
        **settings.STORAGES,
        "default": {
            "BACKEND": "training.atomic_storage.AtomicFileStorage",
            "OPTIONS": {"location": tmp_path},
        },
    }
    set_prices()
    return server


def cloud() -> Ec2:
    configuration = get_configuration()
    assert configuration is not None
    return Ec2(configuration)


def launch(**parameters: Any) -> TrainingRun:
    run = factories.run(factories.market(), is_sent=False, **parameters)
    TrainingRun.objects.filter(pk=run.pk).update(created_at=timezone.now() - timedelta(minutes=1))
    return run


def report(instance: Any) -> str:
    """The heartbeat of the worker on it; answers its name."""
    name = f"worker@{instance.id}"
    Worker.objects.update_or_create(
        name=name,
        defaults={
            "queues": "training", "device": "NVIDIA A10G", "torch_version": "2", "code_version": "0",
            "rate_usd_per_hour": Decimal("0.15"), "started_at": timezone.now(), "last_heard_at": timezone.now(),
        },
    )  # fmt: skip
    return name


def test_a_machine_is_launched_from_the_template_and_terminated_when_idle(
    ec2: MotoEc2, settings: Any
) -> None:
    run = launch(epochs=1)
    control_machines()
    (instance,) = ec2.list_instances()
    assert (states(), the_machine().instance_id) == ([MachineState.STARTING], instance.id)
    (asked,) = ec2.list_asked("RunInstances")
    assert asked["ClientToken"] == the_machine().life
    assert asked["InstanceInitiatedShutdownBehavior"] == "terminate"
    assert asked["InstanceMarketOptions.SpotOptions.MaxPrice"] == "0.4500"
    assert asked["MetadataOptions.InstanceMetadataTags"] == "enabled"
    assert (instance.lifecycle, instance.instance_type) == ("spot", "g5.xlarge")
    worker.train(run.pk, worker_name=report(instance), device="cpu")
    control_machines()
    assert (states(), the_machine().market) == ([MachineState.RUNNING], Market.SPOT)
    tags = {tag["key"]: tag["value"] for tag in instance.get_tags()}
    assert tags["crpbot-gate"] == "crpbot"
    assert tags["crpbot-seconds"] == str(5400 - 45)
    assert abs(
        datetime.strptime(tags["crpbot-heard"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC) - timezone.now()
    ) < timedelta(seconds=60)

    settings.MACHINE_IDLE_SECONDS = 0.0
    for _ in range(3):
        control_machines()
    machine = the_machine()
    assert (machine.state, machine.reason, instance.state) == (
        MachineState.STOPPED,
        "idle for 0.0 s",
        "terminated",
    )
    assert machine.is_end_exact
    assert machine.billed_seconds == 60, "a minute at least"
    run.refresh_from_db()
    assert run.machine_usd == machine.cost_usd > 0


def test_a_late_machine_is_waited_for_and_told_to_stop_at_last(ec2: MotoEc2, settings: Any) -> None:
    launch()
    control_machines()
    (instance,) = ec2.list_instances()
    delay(instance)
    control_machines()
    assert states() == [MachineState.STARTING]
    boot(instance)
    control_machines()
    assert states() == [MachineState.RUNNING]
    settings.MACHINE_START_SECONDS = 0.0
    control_machines()
    control_machines()
    assert (the_machine().state, instance.state) == (MachineState.STOPPED, "terminated")
    assert the_machine().reason.startswith("no worker on it reported")


def test_a_reclaimed_run_resumes_from_its_checkpoint_elsewhere(ec2: MotoEc2, settings: Any) -> None:
    """Real training: the machine goes after the second epoch, and the next one ends with the bytes of an undisturbed run."""
    run = launch(epochs=5, patience=9)
    undisturbed = factories.run(run.dataset, epochs=5, patience=9, is_sent=False, budget=runs.open_budget())
    worker.train(undisturbed.pk, worker_name="here@test", device="cpu")
    control_machines()
    (first,) = ec2.list_instances()

    class MachineGone(BaseException):
        pass

    def leave(epoch: Any) -> None:
        if epoch.number == 2:
            raise MachineGone

    with pytest.raises(MachineGone):
        worker.train(run.pk, worker_name=report(first), device="cpu", on_epoch=leave)
    control_machines()
    reclaim(first)
    Worker.objects.all().delete()
    TrainingRun.objects.filter(pk=run.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
    control_machines()
    assert states() == [MachineState.STOPPED, MachineState.STARTING]
    old, new = Machine.objects.order_by("pk")
    assert (old.is_reclaimed, old.is_end_exact) == (True, False)
    assert (old.market, new.market) == (Market.SPOT, Market.ON_DEMAND), "not where it was just taken back"
    second = next(each for each in ec2.list_instances() if each.id == new.instance_id)
    worker.train(run.pk, worker_name=report(second), device="cpu")
    run.refresh_from_db()
    undisturbed.refresh_from_db()
    assert (run.state, run.attempt, run.bundle) == (JobState.SUCCEEDED, 2, undisturbed.bundle)
    assert list(run.epoch_rows.values_list("number", "attempt")) == [(1, 1), (2, 1), (3, 2), (4, 2), (5, 2)]
    control_machines()
    assert run.machine_uses.count() == 2


def test_a_repeated_start_yields_one_instance(ec2: MotoEc2) -> None:
    launch()
    ec2.loses_answers_to = {"RunInstances"}
    control_machines()
    assert (states(), len(ec2.list_instances())) == ([MachineState.REQUESTED], 1)
    control_machines()
    assert (states(), len(ec2.list_instances())) == ([MachineState.RUNNING], 1)
    order = Order(the_machine().life, "g5.xlarge", Market.SPOT, Decimal("0.45"), 5400)
    assert cloud().start(order) == cloud().start(order) == the_machine().instance_id
    assert len(ec2.list_instances()) == 1


def test_an_instance_with_our_tag_that_nobody_asked_for_is_terminated(ec2: MotoEc2) -> None:
    launch()
    control_machines()
    cloud().start(Order("another-life", "g5.xlarge", Market.ON_DEMAND, Decimal("1.006"), 5400))
    control_machines()
    found = Machine.objects.get(slot=None)
    assert found.state == MachineState.STOPPING
    control_machines()
    found.refresh_from_db()
    assert (found.state, found.usd_per_hour) == (MachineState.STOPPED, Decimal("1.0060"))
    assert sorted(each.state for each in ec2.list_instances()) == ["running", "terminated"]


def test_an_instance_of_others_is_never_touched(ec2: MotoEc2) -> None:
    image = ec2.client().describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
    ec2.client().run_instances(ImageId=image, InstanceType="g5.xlarge", MinCount=1, MaxCount=1)
    control_machines()
    assert [each.state for each in ec2.list_instances()] == ["running"]


def test_without_spot_capacity_ec2_is_asked_on_demand(ec2: MotoEc2) -> None:
    ec2.refuses_spot = True
    launch()
    control_machines()
    control_machines()
    assert states() == [MachineState.FAILED, MachineState.STARTING]
    assert "InsufficientInstanceCapacity" in Machine.objects.earliest("pk").reason
    assert [each.lifecycle for each in ec2.list_instances()] == [None]


def test_a_given_instance_is_started_and_stopped_and_never_terminated(ec2: MotoEc2, settings: Any) -> None:
    image = ec2.client().describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
    made = ec2.client().run_instances(ImageId=image, InstanceType="g5.xlarge", MinCount=1, MaxCount=1)
    given = made["Instances"][0]["InstanceId"]
    ec2.client().stop_instances(InstanceIds=[given])
    (instance,) = ec2.list_instances()
    age(instance, 86_400)
    configure(settings, MACHINE_INSTANCE=given, MACHINE_TEMPLATE="")
    control_machines()
    assert instance.state == "stopped", "it is not ours before the first start, and nothing is wanted"
    for number in (1, 2):
        run = launch(epochs=1, seed=number)
        control_machines()
        assert instance.state == "running"
        settings.MACHINE_IDLE_SECONDS = 300.0
        worker.train(run.pk, worker_name=report(instance), device="cpu")
        control_machines()
        settings.MACHINE_IDLE_SECONDS = 0.0
        for _ in range(3):
            control_machines()
        assert (instance.state, the_machine().state) == ("stopped", MachineState.STOPPED)
        assert the_machine().billed_seconds == 60, "from this start, and not from the first"
        assert [use.run_id for use in the_machine().uses.all()] == [run.pk]
    assert (len(ec2.list_instances()), ec2.list_asked("TerminateInstances")) == (1, [])


def test_the_user_data_holds_a_watchdog_and_no_secret(ec2: MotoEc2, settings: Any) -> None:
    settings.MACHINE_IMAGE = "registry.example.com/crpbot-gate-gpu:0.1.0; reboot"
    launch()
    control_machines()
    script = base64.b64decode(ec2.list_asked("RunInstances")[0]["UserData"]).decode()
    assert "'registry.example.com/crpbot-gate-gpu:0.1.0; reboot'" in script
    assert "Environment=CRPBOT_LONGEST_SECONDS=5355" in script
    assert "shutdown -h +89" in script
    assert "crpbot-heard" in script and "@WATCHDOG@" not in script
    for secret in (settings.SECRET_KEY, SECRET, settings.REDIS_URL):
        assert secret not in script
    assert len(script.encode()) < 16_384, "EC2's limit"


def test_what_ec2_refuses_fails_that_life_with_its_words(ec2: MotoEc2, settings: Any) -> None:
    settings.MACHINE_TEMPLATE = "nowhere"
    launch()
    control_machines()
    assert (the_machine().state, the_machine().slot) == (MachineState.FAILED, None)
    assert "InvalidLaunchTemplateName" in the_machine().reason


def test_an_answer_that_is_not_ec2s_is_no_answer(ec2: MotoEc2) -> None:
    """A proxy in between, say: whether something was started is unknown."""
    launch()
    ec2.garbles_answers_to = {"RunInstances"}
    control_machines()
    assert states() == [MachineState.REQUESTED]
    control_machines()
    assert (states(), len(ec2.list_instances())) == ([MachineState.RUNNING], 1)


def test_a_frozen_ec2_holds_reconcile_up_no_longer_than_its_deadline(ec2: MotoEc2, settings: Any) -> None:
    settings.CLOUD_READ_SECONDS = 0.3
    ec2.delay_seconds = 1.5
    launch()
    before = timezone.now()
    control_machines()
    assert timezone.now() - before < timedelta(seconds=5)
    assert ControllerTurn.objects.get().problem.startswith("EC2 does not answer")
    assert len(ec2.asked) == 1, "one attempt"


def test_times_and_errors_of_ec2_are_read_as_it_writes_them(ec2: MotoEc2, settings: Any) -> None:
    described = {
        "InstanceId": "i-1",
        "InstanceType": "g5.xlarge",
        "InstanceLifecycle": "spot",
        "State": {"Name": "terminated"},
        "StateTransitionReason": "User initiated (2026-11-29 12:34:56 GMT)",
        "StateReason": {"Code": "Client.UserInitiatedShutdown", "Message": "User initiated shutdown"},
        "LaunchTime": datetime(2026, 11, 29, 12, tzinfo=UTC),
    }
    instance = cloud()._read_instance(described)
    assert instance.ended_at == datetime(2026, 11, 29, 12, 34, 56, tzinfo=UTC)
    assert (instance.market, instance.is_reclaimed, instance.is_ours) == (Market.SPOT, False, False)
    assert abs(cloud().look().at - timezone.now()) < timedelta(seconds=5), "the clock of the answer"
    settings.MACHINE_ENDPOINT = "http://127.0.0.1:9"
    with pytest.raises(CloudUnavailable):
        cloud().look()
    settings.MACHINE_ENDPOINT = ec2.endpoint
    configure(settings, MACHINE_INSTANCE="i-00000000000000000", MACHINE_TEMPLATE="", MACHINE_REGION=REGION)
    with pytest.raises(CloudRefused, match=r"InvalidInstanceID\.NotFound"):
        cloud().look()
