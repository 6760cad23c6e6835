"""The commands of the repository, on a machine that lacks something."""

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from django.conf import settings

REPOSITORY = Path(settings.BASE_DIR)
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
MAKEFILE = (REPOSITORY / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
LINTERS = (
    "ruff check",
    "ruff format --check",
    "mypy",
    "lint-imports",
    "makemigrations --check",
    "tests.docs.prose",
)
RUN_THE_PRODUCT = ("demo", "serve", "wheel")
INTERNAL = {"service", "install", "development", "chromium", "promtool", "mlflow"}  # steps of other commands


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What `make` reads of the repository, without an environment."""
    folder = tmp_path / "clone"
    folder.mkdir()
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(REPOSITORY / name, folder)
    return folder


def make(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "CRPBOT_"))}
    return subprocess.run(
        ["make", "--no-print-directory", *words],
        cwd=folder,
        env={**kept, **environment},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
    )


def script(path: Path, body: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.mark.parametrize("words", [(), ("help",)], ids=["make", "make help"])
def test_help_lists_the_commands(words: tuple[str, ...]) -> None:
    listed = make(REPOSITORY, *words).stdout.splitlines()
    assert {line.split()[1] for line in listed} == TARGETS - INTERNAL
    assert [line for line in listed if not re.fullmatch(r"  make [a-z-]+ +\w.{10,}", line)] == []


def test_every_command_is_phony() -> None:
    phony = re.search(r"^\.PHONY: ((?:.*\\\n)*.*)$", MAKEFILE, re.MULTILINE)
    assert phony
    assert set(phony[1].replace("\\", "").split()) == TARGETS


def test_test_runs_what_must_hold_before_a_change_lands() -> None:
    planned = make(REPOSITORY, "--dry-run", "test").stdout
    for command in LINTERS:
        assert command in planned
    assert re.search(r"-m pytest -n 4 -m \"not \(long or soak\)\"", planned)
    assert re.search(
        r"CRPBOT_TEST_DATABASE=postgresql .*pytest .*-m \"postgresql and not \(long or soak\)\"", planned
    )


def test_ci_adds_the_rest_but_for_the_long_runs() -> None:
    planned = make(REPOSITORY, "--dry-run", "long").stdout
    assert re.search(r"-m pytest -n 4 -m \"long and not soak\"", planned)
    assert re.search(
        r"CRPBOT_TEST_DATABASE=postgresql .*pytest .*-m \"postgresql and long and not soak\"", planned
    )


def test_coverage_measures_the_full_pass_against_a_floor() -> None:
    planned = make(REPOSITORY, "--dry-run", "coverage").stdout
    run, report = re.findall(r"slipcover (.+)", planned)
    assert re.search(r"--json --out (\S+) .*-m pytest .*-m \"not soak\"", run)
    assert "--merge build/coverage.json" in report and "--fail-under" not in report
    assert PROJECT["tool"]["slipcover"]["fail-under"] >= 94


def test_fast_leaves_out_only_marks_that_exist() -> None:
    marks = {text.partition(":")[0] for text in PROJECT["tool"]["pytest"]["ini_options"]["markers"]}
    left_out = re.search(r"-m \"not \((.+)\)\"", make(REPOSITORY, "--dry-run", "fast").stdout)
    assert left_out
    assert set(left_out[1].split(" or ")) <= marks


def test_setup_without_a_python_says_which_it_needs_and_how_to_name_one(clone: Path) -> None:
    asked = make(clone, "setup", "PYTHON=python-that-is-not-there")
    assert asked.returncode != 0
    assert "This needs Python 3.11 or 3.12" in asked.stdout
    assert "make setup PYTHON=/path/to/python3.11" in asked.stdout
    assert not (clone / ".venv").exists()


def test_setup_passes_over_a_python_that_is_too_old(clone: Path, tmp_path: Path) -> None:
    old = script(tmp_path / "python3", "exit 1")  # what the question for a fitting version makes of it
    asked = make(clone, "setup", f"PYTHON={old}")
    assert asked.returncode != 0
    assert "found neither" in asked.stdout


def test_setup_without_room_on_the_disk_says_how_much_it_needs(clone: Path) -> None:
    asked = make(clone, "setup", f"PYTHON={sys.executable}", "FREE_MB_NEEDED=999999999")
    assert asked.returncode != 0
    assert "the packages need 999999999: make room first" in asked.stdout
    assert not (clone / ".venv").exists()


@pytest.fixture
def log(clone: Path, tmp_path: Path) -> Path:
    """What the environment's Python is asked, each with the first package of its input."""
    path, first_package = tmp_path / "log", "sed -n 2p | cut -d= -f1"
    body = f'[ "$1" = -V ] && echo Python 3.11.7 || echo "$@ $({first_package})" >> {path}'
    script(clone / ".venv" / "bin" / "python", body)
    return path


def read_installs(log: Path) -> list[str]:
    """The commands that install, since the last time."""
    lines = log.read_text().splitlines() if log.exists() else []
    log.unlink(missing_ok=True)
    return [line for line in lines if "pip install" in line]


def test_setup_installs_torch_first_and_the_lock_after_it_once(clone: Path, log: Path) -> None:
    assert make(clone, "setup").returncode == 0
    installs = read_installs(log)
    assert [line.split()[-1] for line in installs] == [
        "torch", "cuda-bindings", "aiohappyeyeballs", "arrow"
    ]  # fmt: skip
    for line in installs:
        assert "--require-hashes --no-deps --only-binary :all: -r /dev/stdin" in line
    assert "--no-index --find-links build/torch" in installs[0], "the build that pip takes by itself"
    assert make(clone, "setup").stdout == ""
    assert not log.exists(), "Python was asked again although nothing changed"
    with (clone / "constraints.txt").open("a") as lock:
        lock.write("another==1.0\n")
    make(clone, "setup")
    assert len(read_installs(log)) == 4


@pytest.mark.parametrize("command", RUN_THE_PRODUCT)
def test_what_runs_the_product_installs_no_tool_of_development(clone: Path, log: Path, command: str) -> None:
    assert make(clone, command).returncode == 0
    assert [line.split()[-1] for line in read_installs(log)] == ["torch", "cuda-bindings", "aiohappyeyeballs"]


def test_development_is_installed_beside_what_the_demo_needed(clone: Path, log: Path) -> None:
    make(clone, "demo")
    read_installs(log)
    assert make(clone, "setup").returncode == 0
    (install,) = read_installs(log)
    assert install.split()[-1] == "arrow"
    make(clone, "demo")
    assert read_installs(log) == []


def test_every_command_on_the_environment_makes_it_first() -> None:
    needs = dict(re.findall(r"^([a-z-]+):([a-z ]*)", MAKEFILE, re.MULTILINE))
    others = (
        TARGETS - INTERNAL - {"help", "setup", "test", "image-digests", "clean"}
    )  # `test` is three others
    assert {name for name in others if "service" in needs[name].split()} == set(RUN_THE_PRODUCT)
    assert {name for name in others if "setup" in needs[name].split()} == others - set(RUN_THE_PRODUCT)


def test_demo_hands_on_what_it_is_told(clone: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    script(clone / ".venv" / "bin" / "python", f'[ "$1" = -V ] && echo Python 3.11.7 || echo "$@" >> {log}')
    make(clone, "demo", "PORT=8001", "CANDLES=a folder", "DRIFT=0", "EXIT=1")
    assert (
        log.read_text().splitlines()[-1] == "-m crpbot.demo --port 8001 --candles a folder --drift 0 --exit"
    )


class TestCI:
    @pytest.fixture
    def asked(self, tmp_path: Path) -> Path:
        """A checkout whose `make` only tells what it was asked."""
        (tmp_path / "main" / ".ci").mkdir(parents=True)
        shutil.copy(REPOSITORY / ".ci" / "run", tmp_path / "main" / ".ci" / "run")
        script(tmp_path / "bin" / "make", 'echo "make $@; candles: $CRPBOT_CANDLES_DIR"; exit 7')
        return tmp_path

    def run(self, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
        path = f"{folder / 'bin'}:{os.environ['PATH']}"
        return subprocess.run(
            ["bash", ".ci/run"],
            cwd=folder / "main",
            env={"PATH": path, **environment},
            capture_output=True,
            text=True,
        )

    def test_runs_the_tests_and_fails_when_they_fail(self, asked: Path) -> None:
        ran = self.run(asked)
        assert ran.stdout == "make test long; candles: \n"
        assert ran.returncode == 7

    def test_takes_real_candles_that_lie_beside_the_repository(self, asked: Path) -> None:
        (asked / "shared" / "data").mkdir(parents=True)
        assert self.run(asked).stdout == f"make test long; candles: {asked}/shared/data\n"

    def test_leaves_a_folder_of_candles_that_was_named(self, asked: Path) -> None:
        (asked / "shared" / "data").mkdir(parents=True)
        assert "candles: /elsewhere" in self.run(asked, CRPBOT_CANDLES_DIR="/elsewhere").stdout


class TestWorkflow:
    PATH = REPOSITORY / ".github" / "workflows" / "ci.yml"
    JOBS = yaml.safe_load(PATH.read_text())["jobs"]

    def test_has_a_job_for_each_part_of_the_tests(self) -> None:
        parts = re.search(r"^test: ([a-z ]+?) *##", MAKEFILE, re.MULTILINE)
        assert parts
        assert set(self.JOBS) == {*parts[1].split(), "fast", "long"}

    def test_each_job_runs_the_command_of_its_name(self) -> None:
        for name, job in self.JOBS.items():
            assert name in TARGETS
            assert job["steps"][-1] == {"run": "make ${{ github.job }}"}

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("schema", "paths"),
        [
            ("github-workflows", [".github/workflows/ci.yml"]),
            ("github-issue-forms", [".github/ISSUE_TEMPLATE/bug.yml", ".github/ISSUE_TEMPLATE/change.yml"]),
            ("github-issue-config", [".github/ISSUE_TEMPLATE/config.yml"]),
        ],
    )
    def test_fits_the_schema_of_the_code_host(self, schema: str, paths: list[str]) -> None:
        checked = subprocess.run(
            [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", *paths],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
        )
        assert checked.returncode == 0, checked.stdout


def test_the_devcontainer_has_the_python_of_the_image() -> None:
    container = json.loads((REPOSITORY / ".devcontainer" / "devcontainer.json").read_text())
    dockerfile = (REPOSITORY / ".devcontainer" / container["build"]["dockerfile"]).read_text()
    image = re.search(
        r"^ARG PYTHON_IMAGE=python:([\d.]+)", (REPOSITORY / "Dockerfile").read_text(), re.MULTILINE
    )
    assert image
    assert f"FROM python:{image[1]}-" in dockerfile
    assert container["postCreateCommand"].removeprefix("make ") in TARGETS
