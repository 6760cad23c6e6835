"""The signature and the encryption of backups, and the settings of where they lie."""

import io
import os
import runpy
from pathlib import Path
from typing import Any

import pyrage
import pytest
from django.core.exceptions import ImproperlyConfigured

from common.errors import Conflict, InvalidInput, Unavailable
from crpbot.backup import seal
from crpbot.backup.seal import Access
from tests.processes import REPOSITORY


@pytest.fixture(autouse=True)
def folder(settings: Any, tmp_path: Path) -> Path:
    settings.SIGNING_KEYS_DIR = tmp_path / "keys"
    return tmp_path / "keys"


def test_the_first_signature_makes_the_key_which_only_the_service_reads(folder: Path) -> None:
    with pytest.raises(Unavailable, match=r"backup\.pem"):
        seal.get_public_hex()
    envelope = seal.sign(b"content")
    assert (folder / "backup.pem").stat().st_mode & 0o777 == 0o600
    assert seal.open_envelope(envelope, seal.get_public_hex()) == b"content"
    assert seal.open_envelope(seal.sign(b"other"), Access.build().public_hex) == b"other"


@pytest.mark.parametrize(
    ("old", "new"),
    [(b"Y29udGVudA==", b"b3RoZXJzCg=="), (b"crpbot.backup", b"crpbot.snapshot"), (b'"sig"', b'"gis"')],
    ids=["other bytes", "another type", "no signature"],
)
def test_what_was_changed_is_refused(old: bytes, new: bytes) -> None:
    envelope = seal.sign(b"content")
    assert old in envelope
    with pytest.raises(Conflict):
        seal.open_envelope(envelope.replace(old, new), seal.get_public_hex())


def test_another_key_that_claims_the_id_of_this_one_is_refused(folder: Path) -> None:
    mine = seal.sign(b"content")
    public = seal.get_public_hex()
    (folder / "backup.pem").unlink()
    other = seal.sign(b"content")
    id_of = {envelope: envelope.split(b'"keyid": "')[1][:64] for envelope in (mine, other)}
    with pytest.raises(Conflict, match="was not signed with the key"):
        seal.open_envelope(other.replace(id_of[other], id_of[mine]), public)
    assert seal.open_envelope(mine, public) == b"content"


def test_a_damaged_key_signs_nothing_and_is_not_replaced(folder: Path) -> None:
    folder.mkdir()
    (folder / "backup.pem").write_text("no key")
    with pytest.raises(Unavailable, match="Restore it from a copy"):
        seal.sign(b"content")
    assert (folder / "backup.pem").read_text() == "no key"


@pytest.mark.parametrize("text", ["ab", "z" * 64, "ab" * 33])
def test_a_public_key_is_64_characters_in_hex(text: str) -> None:
    with pytest.raises(InvalidInput, match="64 characters"):
        Access.build(public_key=text)


def test_who_has_the_identity_of_any_recipient_decrypts(tmp_path: Path) -> None:
    first, second = pyrage.x25519.Identity.generate(), pyrage.x25519.Identity.generate()
    encrypted = io.BytesIO()
    seal.encrypt(
        io.BytesIO(b"content" * 99_999), encrypted, [str(each.to_public()) for each in (first, second)]
    )
    (tmp_path / "identity").write_text(f"# created: today\n\n{second}\n")
    access = Access.build(public_key="ab" * 32, identity_file=str(tmp_path / "identity"))
    assert str(second) not in repr(access), "no log shows it"
    plain = io.BytesIO()
    seal.decrypt(io.BytesIO(encrypted.getvalue()), plain, access)
    assert plain.getvalue() == b"content" * 99_999
    damaged = bytearray(encrypted.getvalue())
    damaged[-50] ^= 1
    with pytest.raises(Conflict, match="cannot be decrypted"):
        seal.decrypt(io.BytesIO(bytes(damaged)), io.BytesIO(), access)
    with pytest.raises(Conflict, match="--identity FILE"):
        seal.decrypt(io.BytesIO(encrypted.getvalue()), io.BytesIO(), Access("ab" * 32))


@pytest.mark.parametrize("content", ["", "# nothing else\n", "no identity"])
def test_a_file_without_identity_says_so(tmp_path: Path, content: str) -> None:
    (tmp_path / "identity").write_text(content)
    with pytest.raises(InvalidInput, match="no identity of age"):
        Access.build(public_key="ab" * 32, identity_file=str(tmp_path / "identity"))
    with pytest.raises(InvalidInput, match="no identity of age"):
        Access.build(public_key="ab" * 32, identity_file=str(tmp_path / "absent"))


def test_what_is_no_recipient_is_refused() -> None:
    with pytest.raises(InvalidInput, match="CRPBOT_BACKUP_RECIPIENTS"):
        seal.encrypt(io.BytesIO(b""), io.BytesIO(), ["age1nothing"])


S3 = {
    "CRPBOT_S3_BUCKET": "crpbot",
    "CRPBOT_S3_ACCESS_KEY": "mine",
    "CRPBOT_S3_SECRET_KEY": "secret",
    "CRPBOT_BACKUP_BUCKET": "backups",
}
OWN = {"CRPBOT_BACKUP_ACCESS_KEY": "other", "CRPBOT_BACKUP_SECRET_KEY": "secret"}


def read_settings(monkeypatch: pytest.MonkeyPatch, folder: Path, **environment: str) -> dict[str, Any]:
    for name in [name for name in os.environ if name.startswith("CRPBOT_")]:
        monkeypatch.delenv(name)
    for name, value in {"CRPBOT_STATE_DIR": str(folder), **environment}.items():
        monkeypatch.setenv(name, value)
    return runpy.run_path(str(REPOSITORY / "crpbot" / "settings.py"))


def test_the_bucket_of_backups_has_keys_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    read = read_settings(monkeypatch, tmp_path, **S3, **OWN)
    options = {name: read["STORAGES"][name]["OPTIONS"] for name in ("default", "backups")}
    assert (options["default"]["bucket_name"], options["default"]["access_key"]) == ("crpbot", "mine")
    assert (options["backups"]["bucket_name"], options["backups"]["access_key"]) == ("backups", "other")
    elsewhere = {
        **S3,
        **OWN,
        "CRPBOT_BACKUP_ACCESS_KEY": "mine",
        "CRPBOT_BACKUP_ENDPOINT": "https://s3.example.com",
    }
    read_settings(monkeypatch, tmp_path, **elsewhere)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({}, "needs keys of its own"),
        ({**OWN, "CRPBOT_BACKUP_SECRET_KEY": ""}, "needs keys of its own"),
        ({**OWN, "CRPBOT_BACKUP_ACCESS_KEY": "mine"}, "could delete every backup"),
        ({**OWN, "CRPBOT_BACKUP_RECIPIENTS": "AGE-SECRET-KEY-1"}, "begins with age1"),
    ],
    ids=["no keys", "half of them", "those of the service", "an identity as recipient"],
)
def test_settings_that_protect_nothing_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, changed: dict[str, str], reason: str
) -> None:
    with pytest.raises(ImproperlyConfigured, match=reason):
        read_settings(monkeypatch, tmp_path, **S3, **changed)


@pytest.mark.parametrize("folder", ["", ".", "/", "{state}", "{state}/keys"])
def test_a_folder_of_recipes_that_holds_the_service_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, folder: str
) -> None:
    """The sandbox reads all of it: an empty setting would be the folder that the service was started in."""
    monkeypatch.chdir(REPOSITORY)
    state = tmp_path / "state"
    with pytest.raises(ImproperlyConfigured, match="Name a folder of its own"):
        read_settings(monkeypatch, state, CRPBOT_RECIPES_DIR=folder.format(state=state))
    read = read_settings(monkeypatch, state, CRPBOT_RECIPES_DIR=str(state / "recipes"))
    assert read["RECIPES_DIR"] == state / "recipes"
