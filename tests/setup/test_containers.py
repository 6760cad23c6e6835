"""docker-compose.yml and the Dockerfile, as far as they can be proven without a container engine."""

import hashlib
import json
import re
import shlex
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.conf import settings
from django.core.management import get_commands

from crpbot.demo.processes import WEB_OPTIONS
from distribution import image_digests

REPOSITORY = Path(settings.BASE_DIR)
TEXT = (REPOSITORY / "docker-compose.yml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OWN = {name: service for name, service in SERVICES.items() if "build" in service}
STEPS = {"migrate", "storage-ready"}
LASTING = {name: service for name, service in SERVICES.items() if name not in STEPS}
VARIABLES = re.findall(r"\$\{(\w+)(:?[-?][^}]*)?\}", TEXT)
OPERATIONS = "".join(page.read_text() for page in (REPOSITORY / "docs" / "operations").glob("*.md"))
DOCKERFILE = (REPOSITORY / "Dockerfile").read_text()
SETTINGS = set(re.findall(r'"(CRPBOT_\w+)"', (REPOSITORY / "crpbot" / "settings.py").read_text()))
NOT_HANDED_ON = {
    "CRPBOT_STATE_DIR": "the embedded profile's",
    "CRPBOT_DATABASE_APPLICATION_URL": "the migrations'",
    "CRPBOT_DATABASE_WORKER_URL": "the migrations'",
    "CRPBOT_CODE_VERSION": "the image's own, from its build",
    "CRPBOT_SIGNING_KEYS_DIR": "where the volume is mounted",
    "CRPBOT_METRICS_DIR": "where the volume is mounted",
    "CRPBOT_BACKUP_DIR": "where the volume is mounted",
    "CRPBOT_RECIPES_DIR": "where the volume is mounted",
}
ONLY_RECONCILE = {
    key for key in SETTINGS if re.match("CRPBOT_BACKUP_(BUCKET|ENDPOINT|REGION|.*_KEY|RECIPIENTS|KEEP)$", key)
}
"""A web process or a worker that somebody took over reaches no backup."""


def command(service: dict[str, Any]) -> list[str]:
    """A service's command, with the defaults of its variables; the image's own where it names none."""
    given = service.get("command") or json.loads(DOCKERFILE.split("\nCMD ")[1].replace("\\\n", ""))
    if isinstance(given, list):
        return given
    return shlex.split(re.sub(r"\$\{\w+:?-([^}]*)\}", r"\1", given))


@pytest.mark.slow
def test_it_fits_the_compose_schema() -> None:
    checked = subprocess.run(
        [
            sys.executable,
            "-m",
            "check_jsonschema",
            "--builtin-schema",
            "vendor.compose-spec",
            "docker-compose.yml",
        ],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stdout


def test_it_has_every_part_of_production() -> None:
    assert {"postgresql", "redis", "storage", "web", "gpu-worker", "cpu-worker", "reconcile"} <= set(SERVICES)
    assert set(SERVICES) >= STEPS


@pytest.mark.parametrize("name", [*LASTING])
def test_what_lasts_is_checked_and_started_again(name: str) -> None:
    assert SERVICES[name]["restart"] == "unless-stopped"
    assert SERVICES[name]["healthcheck"]


@pytest.mark.parametrize("name", [name for name, service in SERVICES.items() if "build" not in service])
def test_foreign_images_are_pinned_to_a_release(name: str) -> None:
    tag = SERVICES[name]["image"].partition(":")[2]
    assert re.match(r"\d+\.\d+", tag), f"{name} runs {SERVICES[name]['image']}"


@pytest.mark.parametrize("name", [*OWN])
def test_our_own_run_without_privileges_on_a_read_only_disk(name: str) -> None:
    assert OWN[name]["read_only"]
    assert OWN[name]["cap_drop"] == ["ALL"]
    assert "USER crpbot" in DOCKERFILE


@pytest.mark.parametrize("name", [name for name, service in SERVICES.items() if service.get("read_only")])
def test_no_inline_file_goes_into_a_read_only_container(name: str) -> None:
    """Compose copies an inline one into the container, and the engine refuses that."""
    configs = [COMPOSE["configs"][given["source"]] for given in SERVICES[name].get("configs", [])]
    assert all((REPOSITORY / config["file"]).is_file() for config in configs)


@pytest.mark.parametrize("name", [*SERVICES])
def test_no_container_needs_more_open_files_than_the_host_has(name: str) -> None:
    """A limit above the host's keeps the container from starting. Caddy and web raise theirs to what they may have."""
    assert "ulimits" not in SERVICES[name]


def test_what_each_request_writes_to_is_in_memory() -> None:
    """On a disk, a metric's file could hold up the event loop of a web process, and with it every bot."""
    options = COMPOSE["volumes"]["metrics"]["driver_opts"]
    uid = re.search(r"--uid (\d+)", DOCKERFILE)
    assert uid is not None
    assert (options["type"], options["device"]) == ("tmpfs", "tmpfs")
    assert {"mode=0700", f"uid={uid[1]}"} <= set(options["o"].split(","))
    assert "metrics:/var/lib/crpbot/metrics" in SERVICES["web"]["volumes"]


def test_no_secret_has_a_default() -> None:
    secret = re.compile("SECRET|PASSWORD|KEY|TOKEN")
    bare = {name for name, rest in VARIABLES if secret.search(name) and not rest}
    asked = {name for name, rest in VARIABLES if secret.search(name) and rest.startswith(":?")}
    defaulted = {name for name, rest in VARIABLES if secret.search(name) and "-" in rest[:2]}
    assert asked
    assert defaulted == set()
    assert bare <= asked, "repeated without a message only where the same name has one"


def test_what_production_requires_is_given() -> None:
    from crpbot.settings import REQUIRED_IN_PRODUCTION

    for name, service in OWN.items():
        assert set(REQUIRED_IN_PRODUCTION) <= set(service["environment"]), name


def test_every_value_is_one_that_the_settings_read() -> None:
    given = {key for service in OWN.values() for key in service["environment"] if key.startswith("CRPBOT_")}
    assert given - SETTINGS == set()


@pytest.mark.parametrize("name", [*OWN])
def test_every_setting_reaches_the_container(name: str) -> None:
    kept = {key for key in NOT_HANDED_ON if not (name == "migrate" and key.startswith("CRPBOT_DATABASE"))}
    kept |= ONLY_RECONCILE if name != "reconcile" else set()
    assert SETTINGS - set(OWN[name]["environment"]) == kept
    assert "CRPBOT_CODE_VERSION=${CODE_VERSION}" in DOCKERFILE


def test_what_has_no_default_here_is_handed_on_as_it_is_set() -> None:
    """Compose's own word for that is a name without a value: an empty one would take the settings' defaults away."""
    handed_on = {key for key, value in COMPOSE["x-service"]["environment"].items() if value is None}
    assert {"CRPBOT_PROXIES", "CRPBOT_RATE_SIGN_IN", "CRPBOT_BOT_LATE_SECONDS"} <= handed_on
    for name, service in OWN.items():
        also = ONLY_RECONCILE if name == "reconcile" else set()
        assert handed_on | also == {key for key, value in service["environment"].items() if value is None}


def test_only_reconcile_reaches_the_backups() -> None:
    assert len(ONLY_RECONCILE) >= 6
    mounted = {
        name for name, service in SERVICES.items() if "/var/lib/crpbot/backups" in str(service.get("volumes"))
    }
    assert mounted == {"reconcile"}


def test_every_variable_is_in_the_operations_pages() -> None:
    told = set(re.findall(r"`(CRPBOT_\w+)`", OPERATIONS))
    assert {name for name, _ in VARIABLES} - told == set()


def test_every_setting_of_the_environment_is_in_the_operations_pages() -> None:
    told = set(re.findall(r"`(CRPBOT_\w+)`", OPERATIONS))
    assert SETTINGS - told == set()


def test_every_command_of_the_operations_pages_exists() -> None:
    told = set(re.findall(r"manage\.py\s+([a-z_]+)", OPERATIONS))
    assert told
    assert told - set(get_commands()) == set()


@pytest.mark.parametrize("name", [*OWN])
def test_its_command_names_something_that_exists(name: str) -> None:
    words = command(OWN[name])
    if words[0] == "uvicorn":
        module, _, attribute = words[1].partition(":")
        assert hasattr(import_module(module), attribute)
    elif words[0] == "celery":
        assert words[1:4] == ["-A", "crpbot", "worker"]
        queues = set(words[words.index("--queues") + 1].split(","))
        assert queues == {"training", "gates"}
    else:
        assert words[:2] == ["python", "manage.py"]
        assert words[2] in get_commands()


def test_only_the_settings_say_whose_word_on_the_askers_address_is_taken() -> None:
    """uvicorn's own answer, the first address of the header, is the asker's to choose: its throttle would be too."""
    for options in (command(SERVICES["web"]), WEB_OPTIONS):
        assert "--no-proxy-headers" in options


@pytest.mark.parametrize("name", ["web", "gpu-worker", "cpu-worker", "reconcile"])
def test_it_starts_once_tables_and_bucket_are_there(name: str) -> None:
    for step in STEPS:
        assert SERVICES[name]["depends_on"][step] == {"condition": "service_completed_successfully"}


def test_the_gpu_worker_reserves_an_nvidia_device() -> None:
    worker = SERVICES["gpu-worker"]
    (device,) = worker["deploy"]["resources"]["reservations"]["devices"]
    assert device["driver"] == "nvidia"
    assert device["capabilities"] == ["gpu"]
    assert worker["profiles"] == ["gpu"]


def test_only_the_gpu_worker_runs_the_image_with_cuda() -> None:
    with_cuda = {name for name, service in OWN.items() if service["build"]["args"].get("TORCH") == "cuda"}
    assert with_cuda == {"gpu-worker"}
    images = {service["image"].partition(":")[0] for name, service in OWN.items() if name not in with_cuda}
    assert (images, OWN["gpu-worker"]["image"].partition(":")[0]) == ({"crpbot-gate"}, "crpbot-gate-gpu")


def test_only_the_proxy_can_be_reached_from_outside() -> None:
    assert [name for name, service in SERVICES.items() if "ports" in service] == ["proxy"]
    assert COMPOSE["networks"]["data"]["internal"]
    assert "data" not in SERVICES["proxy"]["networks"]


def test_the_proxy_tries_every_web_process_before_it_sends_anything() -> None:
    """With a list of its own instead of the name, it could not repeat a request with a body, and took others for down."""
    caddyfile = (REPOSITORY / "Caddyfile").read_text()
    port = re.search(r'"--port", "(\d+)"', DOCKERFILE)
    assert port is not None
    assert re.findall(r"reverse_proxy (.+) \{", caddyfile) == [f"web:{port[1]}"]
    assert "keepalive off" in caddyfile
    assert "fail_duration" not in caddyfile


def test_the_image_holds_every_package_the_service_imports() -> None:
    copied = set(re.findall(r"^COPY (\w+) \1$", DOCKERFILE, re.MULTILINE))
    packages = {path.parent.name for path in REPOSITORY.glob("*/__init__.py")} - {
        "tests",
        "benchmarks",
        "distribution",
    }
    assert copied == packages | {"templates"}


@pytest.mark.parametrize(
    ("torch_requires", "wanted", "status"),
    [("sympy", "cpu", 0), ("nvidia-cudnn-cu13, sympy", "cpu", 1), ("sympy", "cuda", 1)],
    ids=["a CPU build for the CPU image", "CUDA for the CPU image", "a CPU build for the GPU image"],
)
def test_an_image_takes_only_the_torch_that_it_is_for(
    torch_requires: str, wanted: str, status: int, tmp_path: Path
) -> None:
    """The check of the Dockerfile, with a pip that shows this torch."""
    step = DOCKERFILE.replace("\\\n", "").split("rm -r torch")[1].split('&& if [ "$found" = cuda')[0]
    pip = tmp_path / "pip"
    pip.write_text(f"#!/bin/sh\necho 'Requires: {torch_requires}'\n")
    pip.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "TORCH": wanted}
    done = subprocess.run(["sh", "-c", f"true {step}"], env=environment, capture_output=True, text=True)
    assert done.returncode == status
    assert ("set TORCH_INDEX_URL to another index" in done.stderr) == bool(status)


def test_the_image_is_made_smaller_without_what_the_service_loads(tmp_path: Path) -> None:
    gone = ("torch/include/torch.h", "sympy/core/tests/test_one.py", "ccxt/pro/binance.py", "plotly/graph_objs/_bar.py",
            "torch/bin/protoc", "botocore/data/sqs/service.json", "torch/lib/libtorchbind_test.so",
            "onnxruntime/capi/libonnxruntime.so.1.31.1", "plotly/package_data/widgetbundle.js",
            "drf_spectacular_sidecar/static/drf_spectacular_sidecar/redoc/redoc.js", "django/contrib/gis/forms.py",
            "sklearn/datasets/data/iris.csv", "django/conf/locale/de/formats.py")  # fmt: skip
    kept = ("torch/nn/modules.py", "ccxt/binance.py", "plotly/package_data/plotly.min.js", "django/test/client.py",
            "torch/bin/torch_shm_manager", "botocore/data/s3/service.json", "botocore/data/endpoints.json",
            "onnxruntime/capi/onnxruntime_pybind11_state.so", "sklearn/datasets/_base.py", "django/contrib/admin/sites.py",
            "drf_spectacular_sidecar/static/drf_spectacular_sidecar/swagger-ui-dist/swagger-ui.js",
            "django/conf/locale/en/formats.py", "django/conf/locale/__init__.py")  # fmt: skip
    folders = (
        "numpy",
        "scipy",
        "sklearn",
        "networkx",
        "joblib",
        "supervisor",
        "rest_framework",
        "django_filters",
        "axes",
    )
    libraries = (
        "torch/lib/libtorch_cpu.so",
        "torch/lib/libtorch_python.so",
        "_polars_runtime_32/one.so",
        "uvloop/one.so",
        "aiohttp/one.so",
        "cryptography/hazmat/bindings/one.so",
    )
    for name in (*gone, *kept, *libraries, *(f"{folder}/__init__.py" for folder in folders)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    strip = tmp_path / "bin" / "strip"
    strip.parent.mkdir()
    strip.write_text('#!/bin/sh\nshift; ls "$@"\n')
    strip.chmod(0o755)
    script = REPOSITORY / "distribution" / "slim.sh"
    environment = {"PATH": f"{strip.parent}:/usr/bin:/bin"}
    done = subprocess.run(["sh", str(script), str(tmp_path)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.split()) == sorted(libraries)
    assert [name for name in gone if (tmp_path / name).exists()] == []
    assert [name for name in kept if not (tmp_path / name).exists()] == []


def test_the_image_keeps_every_aws_service_that_the_code_calls() -> None:
    kept = set(re.findall(r"! -name (\w+)", (REPOSITORY / "distribution" / "slim.sh").read_text()))
    packages = re.findall(r"^COPY (\w+) \1$", DOCKERFILE, re.MULTILINE)
    code = "".join(file.read_text() for package in packages for file in (REPOSITORY / package).rglob("*.py"))
    called = {"s3", *re.findall(r"""boto\w*\.(?:client|resource)\(\s*["']([\w-]+)["']""", code)}
    assert called - kept == set()


def test_the_builder_is_shown_what_the_image_copies_and_nothing_else() -> None:
    allowed = {
        line.removeprefix("!")
        for line in (REPOSITORY / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    copied = {
        name
        for names in re.findall(r"^COPY (?!--)(.+) \S+$", DOCKERFILE, re.MULTILINE)
        for name in names.split()
    }
    assert allowed == copied


def test_each_process_knows_the_database_role_of_its_part_only() -> None:
    def read_role(name: str) -> str:
        url = OWN[name]["environment"]["CRPBOT_DATABASE_URL"]
        return str(url).removeprefix("postgres://").partition(":")[0]

    assert {name: read_role(name) for name in OWN if name != "storage-ready"} == {
        "web": "crpbot_application",
        "reconcile": "crpbot_application",
        "gpu-worker": "crpbot_worker",
        "cpu-worker": "crpbot_worker",
        "migrate": "crpbot_owner",
    }
    knows_owner = {name for name, service in OWN.items() if "OWNER_PASSWORD" in str(service["environment"])}
    assert knows_owner == {"migrate"}
    assert not any("{CRPBOT_POSTGRES_PASSWORD" in str(service) for service in OWN.values()), "the superuser's"


def test_every_image_gets_its_digest_and_missing_ones_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in image_digests.FILES:
        shutil.copy(REPOSITORY / name, tmp_path)
    foreign = [service["image"].partition("@")[0] for service in SERVICES.values() if "build" not in service]
    monkeypatch.setattr(
        image_digests, "resolve", lambda tag: f"sha256:{hashlib.sha256(tag.encode()).hexdigest()}"
    )
    image_digests.pin(tmp_path)
    image_digests.pin(tmp_path)  # a second time, it replaces them
    assert image_digests.list_unpinned(tmp_path) == []
    pinned = (tmp_path / "docker-compose.yml").read_text()
    for image in foreign:
        assert f"image: {image}@sha256:{hashlib.sha256(image.encode()).hexdigest()}\n" in pinned
    text = (tmp_path / "Dockerfile").read_text()
    (tmp_path / "Dockerfile").write_text(re.sub(r"@sha256:\w+", "", text))
    assert image_digests.list_unpinned(tmp_path) == [text.split("PYTHON_IMAGE=")[1].partition("@")[0]]
