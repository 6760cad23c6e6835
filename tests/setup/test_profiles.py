"""Settings come from the environment: the embedded profile needs none, production refuses to guess a secret."""

import os
import re
import runpy
import stat
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as active_settings
from django.core.exceptions import ImproperlyConfigured

REPOSITORY = Path(active_settings.BASE_DIR)
PRODUCTION = {
    "CRPBOT_PROFILE": "production",
    "CRPBOT_SECRET_KEY": "a secret of this test, long enough to be one",
    "CRPBOT_DATABASE_URL": "postgres://crpbot:word@db:5432/crpbot",
    "CRPBOT_REDIS_URL": "redis://:word@redis:6379/0",
    "CRPBOT_ALLOWED_HOSTS": "gate.example.com",
    "CRPBOT_S3_BUCKET": "crpbot",
    "CRPBOT_S3_ACCESS_KEY": "access",
    "CRPBOT_S3_SECRET_KEY": "secret",
}
SETTINGS_FILE = REPOSITORY / "crpbot" / "settings.py"
WRONG = (" ", "x", "-1", "1e400", "\udcff", "redis://h:x/0", "https://[::1", "postgres://h:x/d")
SECRET = {"CRPBOT_DATABASE_URL", "CRPBOT_REDIS_URL"}
REQUIRED = [name for name in PRODUCTION if name != "CRPBOT_PROFILE"]


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """Nothing set but the state folder."""
    for name in [name for name in os.environ if name.startswith("CRPBOT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CRPBOT_STATE_DIR", str(tmp_path / "state"))
    return monkeypatch


def settings() -> dict[str, Any]:
    """The settings file, read again."""
    return runpy.run_path(str(REPOSITORY / "crpbot" / "settings.py"))


@pytest.mark.parametrize(
    "given",
    [
        {"CRPBOT_MACHINE_REGION": "us-east-1"},
        {
            "CRPBOT_MACHINE_REGION": "us-east-1",
            "CRPBOT_MACHINE_INSTANCE": "i-0123456789abcdef0",
            "CRPBOT_MACHINE_TEMPLATE": "worker",
        },
        {"CRPBOT_MACHINE_MARKETS": "reserved"},
        {"CRPBOT_MACHINE_SLOTS": "0"},
    ],
    ids=["no source", "two sources", "no market", "no slot"],
)
def test_a_machine_that_cannot_be_is_refused_at_the_start(
    environment: pytest.MonkeyPatch, given: dict[str, str]
) -> None:
    for name, value in given.items():
        environment.setenv(name, value)
    with pytest.raises(ImproperlyConfigured, match="CRPBOT_MACHINE_"):
        settings()


class TestProduction:
    @pytest.fixture(autouse=True)
    def complete(self, environment: pytest.MonkeyPatch) -> None:
        for name, value in PRODUCTION.items():
            environment.setenv(name, value)

    def test_runs_on_postgresql_redis_and_s3(self) -> None:
        found = settings()
        assert found["DATABASES"]["default"]["ENGINE"] == "django.db.backends.postgresql"
        assert found["REDIS_URL"] == "redis://:word@redis:6379/0"
        assert found["STORAGES"]["default"]["BACKEND"] == "storages.backends.s3.S3Storage"

    def test_keeps_nothing_on_its_own_disk(self, tmp_path: Path) -> None:
        settings()
        assert not (tmp_path / "state").exists()

    def test_sends_cookies_over_https_only(self) -> None:
        found = settings()
        assert found["SESSION_COOKIE_SECURE"]
        assert found["CSRF_COOKIE_SECURE"]
        assert found["SECURE_SSL_REDIRECT"]

    @pytest.mark.parametrize("name", REQUIRED)
    @pytest.mark.parametrize("given", [None, ""], ids=["absent", "empty"])
    def test_refuses_to_start_without(
        self, name: str, given: str | None, environment: pytest.MonkeyPatch
    ) -> None:
        if given is None:
            environment.delenv(name)
        else:
            environment.setenv(name, given)
        with pytest.raises(ImproperlyConfigured, match=name) as refused:
            settings()
        assert [other for other in REQUIRED if other in str(refused.value)] == [name]

    def test_refuses_an_earlier_secret_key_that_can_be_guessed(self, environment: pytest.MonkeyPatch) -> None:
        environment.setenv(
            "CRPBOT_SECRET_KEY_FALLBACKS", "a secret of last year, long enough to be one,secret"
        )
        with pytest.raises(ImproperlyConfigured, match="FALLBACKS can be guessed"):
            settings()

    @pytest.mark.parametrize(
        "weak",
        ["secret", "changeme" * 10, "django-insecure-0123456789abcdefghijklmnopqrstuvwxyz", "0" * 64],
    )
    def test_refuses_a_secret_key_that_can_be_guessed(
        self, weak: str, environment: pytest.MonkeyPatch
    ) -> None:
        environment.setenv("CRPBOT_SECRET_KEY", weak)
        with pytest.raises(ImproperlyConfigured, match=r"can be guessed.*token_urlsafe"):
            settings()

    @pytest.mark.parametrize("name", sorted(set(re.findall(r'"(CRPBOT_\w+)"', SETTINGS_FILE.read_text()))))
    def test_refuses_what_a_setting_cannot_be_in_one_sentence(
        self, name: str, environment: pytest.MonkeyPatch
    ) -> None:
        """Or takes it, as text. No value ends in another error, and none is guessed from its letters."""
        for value in [*WRONG, *(url.replace("//", "//u:Word-9@") for url in WRONG if "//" in url)]:
            environment.setenv(name, value)
            with suppress(ImproperlyConfigured):
                try:
                    settings()
                except ImproperlyConfigured as refused:
                    assert "CRPBOT_" in str(refused) and "\n" not in str(refused)
                    assert "Word-9" not in str(refused) or name not in SECRET
                    raise

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("CRPBOT_REQUIRE_SECOND_FACTOR", "ture"),
            ("CRPBOT_SSL_REDIRECT", "on,"),
            ("CRPBOT_BACKUP_HOURS", "every 24"),
            ("CRPBOT_BACKUP_HOURS", "1e400"),
            ("CRPBOT_BACKUP_KEEP", "7,4,x"),
            ("CRPBOT_LEASE_SECONDS", "-1"),
            ("CRPBOT_RATE_READS", "many"),
            ("CRPBOT_RATE_SIGN_IN", "20/fortnight"),
            ("CRPBOT_RELEASE_SPENDING_LIMIT_USD", "$1.50"),
            ("CRPBOT_DATABASE_URL", "mysql://u:p@h/db"),
            ("CRPBOT_DATABASE_URL", "postgres://u:p@h:x/db"),
            ("CRPBOT_REDIS_URL", "redis://h/x"),
            ("CRPBOT_S3_ENDPOINT", "minio:9000"),
            ("CRPBOT_LOG_LEVEL", "loud"),
            ("CRPBOT_SECRET_KEY", "   "),
        ],
    )
    def test_guesses_nothing(self, name: str, value: str, environment: pytest.MonkeyPatch) -> None:
        environment.setenv(name, value)
        with pytest.raises(ImproperlyConfigured, match=name):
            settings()

    def test_what_compose_leaves_empty_is_as_if_unset(self, environment: pytest.MonkeyPatch) -> None:
        before = settings()
        names = ("BACKUP_HOURS", "DATABASE_LOCK_SECONDS", "REQUIRE_SECOND_FACTOR", "STUDY_SPENDING_LIMIT_USD")
        for name in names:
            environment.setenv(f"CRPBOT_{name}", "")
        assert {name: settings()[name] for name in names} == {name: before[name] for name in names}

    def test_names_everything_that_is_missing_at_once(self, environment: pytest.MonkeyPatch) -> None:
        for name in REQUIRED:
            environment.delenv(name)
        with pytest.raises(ImproperlyConfigured) as refused:
            settings()
        assert all(name in str(refused.value) for name in REQUIRED)


class TestEmbedded:
    def test_needs_nothing(self, environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
        found = settings()
        state = tmp_path / "state"
        assert found["DATABASES"]["default"]["NAME"] == state / "gate.sqlite3"
        assert found["REDIS_URL"] == f"unix://{state}/redis.sock"
        assert found["STORAGES"]["default"]["OPTIONS"]["location"] == state / "files"
        assert set(found["ALLOWED_HOSTS"]) == {"127.0.0.1", "localhost", "[::1]"}

    def test_makes_a_secret_of_its_own_once_that_nobody_else_can_read(
        self, environment: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        first, second = settings()["SECRET_KEY"], settings()["SECRET_KEY"]
        assert first == second
        assert len(first) >= 50
        assert stat.S_IMODE((tmp_path / "state" / "secret_key").stat().st_mode) == 0o600
        environment.setenv("CRPBOT_STATE_DIR", str(tmp_path / "another"))
        assert settings()["SECRET_KEY"] != first

    def test_finds_a_short_place_for_its_socket_below_a_long_path(
        self, environment: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        environment.setenv("CRPBOT_STATE_DIR", str(tmp_path / ("long" * 30)))
        environment.setenv("TMPDIR", "/tmp")
        socket = settings()["REDIS_URL"].removeprefix("unix://")
        assert len(socket) <= 100
        Path(socket).parent.rmdir()

    @pytest.mark.parametrize("is_link", [False, True], ids=["open to others", "a link"])
    def test_refuses_a_folder_for_its_socket_that_others_prepared(
        self, is_link: bool, environment: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        environment.setenv("CRPBOT_STATE_DIR", str(tmp_path / ("long" * 30)))
        environment.setenv("TMPDIR", "/tmp")
        folder = Path(settings()["REDIS_URL"].removeprefix("unix://")).parent
        try:
            if is_link:
                folder.rmdir()
                (tmp_path / "elsewhere").mkdir(mode=0o700)
                folder.symlink_to(tmp_path / "elsewhere")
            else:
                folder.chmod(0o777)
            with pytest.raises(ImproperlyConfigured, match="belongs to another user, or others may write"):
                settings()
        finally:
            folder.unlink() if is_link else folder.rmdir()

    @pytest.mark.slow
    @pytest.mark.parametrize("command", ["check", "active"])
    def test_refuses_another_host_than_loopback(self, command: str, environment: pytest.MonkeyPatch) -> None:
        environment.setenv("CRPBOT_ALLOWED_HOSTS", "127.0.0.1,gate.example.com")
        environment.setenv("DJANGO_SETTINGS_MODULE", "crpbot.settings")
        checked = subprocess.run(
            [sys.executable, "manage.py", command], cwd=REPOSITORY, capture_output=True, text=True
        )
        assert checked.returncode == 1
        assert "answers on loopback only, not as gate.example.com" in checked.stderr
        assert "CRPBOT_PROFILE=production" in checked.stderr


def test_a_profile_that_does_not_exist_is_refused(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("CRPBOT_PROFILE", "staging")
    with pytest.raises(ImproperlyConfigured, match="'staging'; use 'embedded' or 'production'"):
        settings()
