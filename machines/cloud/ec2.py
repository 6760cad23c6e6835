"""Machines of AWS EC2, through boto3.

Our instances are found by a tag. A launched one also has the token of its life as a tag, and as EC2's own ClientToken: a
start that is repeated yields the same instance, whether or not the first answer arrived.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError
from django.conf import settings

from machines.cloud.protocol import CloudRefused, CloudUnavailable, Instance, Order, Sighting
from machines.cloud.user_data import build_user_data, compute_watchdog_seconds
from machines.configuration import Configuration
from machines.rules import Market

OWNER_TAG = "crpbot-gate"
LIFE_TAG = "crpbot-life"
HEARD_TAG = "crpbot-heard"
SECONDS_TAG = "crpbot-seconds"
LACKS_CAPACITY = frozenset(
    {
        "InsufficientInstanceCapacity", "InsufficientCapacity", "SpotMaxPriceTooLow", "MaxSpotInstanceCountExceeded",
        "VcpuLimitExceeded", "InstanceLimitExceeded", "UnfulfillableCapacity",
    }
)  # fmt: skip
"""Another market may still have an instance: its quota is another."""
NOT_NOW = frozenset(
    {
        "RequestLimitExceeded", "Throttling", "Unavailable", "ServiceUnavailable", "InternalError", "InternalFailure",
        "IncorrectInstanceState", "RequestExpired", "EC2ThrottledException",
    }
)  # fmt: skip
"""The same request may succeed later: the instance is still stopping, or EC2 is overloaded."""
_ENDED_AT = re.compile(r"\((\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) (?:GMT|UTC)\)")


class Ec2:
    """The machine that the configuration names, in its region."""

    def __init__(self, configuration: Configuration) -> None:
        self.configuration = configuration
        self._client: Any = boto3.client(
            "ec2",
            region_name=configuration.region,
            endpoint_url=settings.MACHINE_ENDPOINT or None,
            # One attempt: the controller asks again at its next look, and must not hold up the other steps of reconcile.
            config=Config(
                connect_timeout=settings.CLOUD_CONNECT_SECONDS,
                read_timeout=settings.CLOUD_READ_SECONDS,
                retries={"total_max_attempts": 1, "mode": "standard"},
            ),
        )

    def look(self) -> Sighting:
        """Every instance with our tag, and the given one."""
        ours = [{"Name": f"tag:{OWNER_TAG}", "Values": [settings.MACHINE_NAME]}]
        with _errors_of_ec2():
            answers = [*self._client.get_paginator("describe_instances").paginate(Filters=ours)]
            if self.configuration.instance:
                answers.append(self._client.describe_instances(InstanceIds=[self.configuration.instance]))
        found = {
            described["InstanceId"]: described
            for answer in answers
            for reservation in answer["Reservations"]
            for described in reservation["Instances"]
        }
        return Sighting(_read_date(answers[-1]), [self._read_instance(each) for each in found.values()])

    def start(self, order: Order) -> str:
        with _errors_of_ec2():
            return self._start_given(order) if self.configuration.instance else self._launch(order)

    def stop(self, instance_id: str) -> None:
        ids = [instance_id]
        with _errors_of_ec2():
            if instance_id == self.configuration.instance:
                self._client.stop_instances(InstanceIds=ids)
            else:
                self._client.terminate_instances(InstanceIds=ids)

    def renew(self, instance_id: str, *, at: datetime, allowed_seconds: int) -> None:
        """The watchdog counts by the system's uptime, and only looks whether the value has changed."""
        tags = {
            HEARD_TAG: at.strftime("%Y%m%dT%H%M%SZ"),
            SECONDS_TAG: str(compute_watchdog_seconds(allowed_seconds)),
        }
        with _errors_of_ec2():
            self._client.create_tags(Resources=[instance_id], Tags=_to_tags(tags))

    def _start_given(self, order: Order) -> str:
        ids = [self.configuration.instance]
        tags = {OWNER_TAG: settings.MACHINE_NAME, LIFE_TAG: order.life}
        tags |= {SECONDS_TAG: str(compute_watchdog_seconds(order.allowed_seconds))}
        self._client.create_tags(Resources=ids, Tags=_to_tags(tags))
        self._client.start_instances(InstanceIds=ids)
        return self.configuration.instance

    def _launch(self, order: Order) -> str:
        template = self.configuration.template
        named = "LaunchTemplateId" if template.startswith("lt-") else "LaunchTemplateName"
        tags = _to_tags(
            {
                "Name": f"{settings.MACHINE_NAME} worker",
                OWNER_TAG: settings.MACHINE_NAME,
                LIFE_TAG: order.life,
                SECONDS_TAG: str(compute_watchdog_seconds(order.allowed_seconds)),
            }
        )
        answer = self._client.run_instances(
            LaunchTemplate={named: template},
            InstanceType=order.instance_type,
            MinCount=1,
            MaxCount=1,
            ClientToken=order.life,
            # What the watchdog does from inside ends the bill too, and leaves nothing behind.
            InstanceInitiatedShutdownBehavior="terminate",
            # The watchdog reads its tags here; a container is one hop too far away for the instance's role.
            MetadataOptions={
                "HttpEndpoint": "enabled",
                "HttpTokens": "required",
                "HttpPutResponseHopLimit": 1,
                "InstanceMetadataTags": "enabled",
            },
            UserData=build_user_data(usd_per_hour=order.usd_per_hour, allowed_seconds=order.allowed_seconds),
            TagSpecifications=[{"ResourceType": kind, "Tags": tags} for kind in ("instance", "volume")],
            **(_build_spot_options(order) if order.market == Market.SPOT else {}),
        )
        return str(answer["Instances"][0]["InstanceId"])

    def _read_instance(self, described: Mapping[str, Any]) -> Instance:
        state, tags = described["State"]["Name"], _read_tags(described)
        has_ended = state in ("stopped", "terminated")
        is_spot = described.get("InstanceLifecycle") == "spot"
        code = described.get("StateReason", {}).get("Code", "")
        is_reclaimed = has_ended and is_spot and code.startswith("Server.Spot")
        return Instance(
            id=described["InstanceId"],
            life=tags.get(LIFE_TAG, ""),
            is_ours=tags.get(OWNER_TAG) == settings.MACHINE_NAME,
            instance_type=described["InstanceType"],
            market=Market.SPOT if is_spot else Market.ON_DEMAND,
            is_running=state == "running",
            has_ended=has_ended,
            started_at=described.get("LaunchTime"),
            ended_at=self._find_end(described) if has_ended else None,
            end_reason=described.get("StateReason", {}).get("Message", "") if has_ended else "",
            is_reclaimed=is_reclaimed,
        )

    def _find_end(self, described: Mapping[str, Any]) -> datetime | None:
        """When it ended. A stop that was asked for has its time in the text; a spot request has the time of its end."""
        if match := _ENDED_AT.search(described.get("StateTransitionReason", "")):
            return datetime.strptime(match[1], "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
        request = described.get("SpotInstanceRequestId")
        if not request:
            return None
        with _errors_of_ec2():
            found = self._client.describe_spot_instance_requests(SpotInstanceRequestIds=[request])
        statuses = [each.get("Status", {}) for each in found["SpotInstanceRequests"]]
        ended: datetime | None = next((each["UpdateTime"] for each in statuses if "UpdateTime" in each), None)
        return ended


def _build_spot_options(order: Order) -> dict[str, Any]:
    options = {
        "MaxPrice": f"{order.usd_per_hour:f}",
        "SpotInstanceType": "one-time",
        "InstanceInterruptionBehavior": "terminate",
    }
    return {"InstanceMarketOptions": {"MarketType": "spot", "SpotOptions": options}}


@contextmanager
def _errors_of_ec2() -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if code in LACKS_CAPACITY:
            raise CloudRefused(str(error), lacks_capacity=True) from error
        if code in NOT_NOW or status >= 500:
            raise CloudUnavailable(str(error)) from error
        raise CloudRefused(str(error)) from error
    except (BotoCoreError, ResponseParserError) as error:
        raise CloudUnavailable(f"EC2 does not answer: {error}") from error


def _to_tags(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def _read_tags(described: Mapping[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in described.get("Tags", ())}


def _read_date(answer: Mapping[str, Any]) -> datetime:
    """The cloud's own time, from the header of its answer: the times of instances are by the same clock."""
    headers = answer["ResponseMetadata"]["HTTPHeaders"]
    return parsedate_to_datetime(headers["date"]) if "date" in headers else datetime.now(UTC)
