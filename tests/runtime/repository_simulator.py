"""The service as a repository that can be told to attack, as python-tuf's RepositorySimulator is one.

It serves over HTTP on loopback and signs with the library that the service signs with. Its keys change as the service's do:
each change is a set of keys, signed by a key of the set before. A thief has copies of keys, and the network between.
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from securesystemslib.dsse import Envelope
from securesystemslib.signer import CryptoSigner

from tests.runtime.stub_service import PAYLOAD_TYPE, SIGNED_PATH, Release, StubService

HIGHEST = 2**62
"""The revision of a fast-forward attack."""

STEP_S = 0.02


def create_key() -> CryptoSigner:
    return CryptoSigner.generate_ed25519()


def get_public(*signers: CryptoSigner) -> str:
    return ",".join(signer.public_key.keyval["public"] for signer in signers)


@dataclass
class RepositorySimulator(StubService):
    trusted: list[CryptoSigner] = field(default_factory=list)
    """The latest set of keys."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.change_keys(*self.signers)

    @property
    def exported(self) -> str:
        """What `manage.py keys export` prints."""
        return f"{len(self.key_sets)}:{get_public(*self.trusted)}"

    def change_keys(self, *signers: CryptoSigner) -> None:
        """Publish the next set of keys, signed by all of the last one."""
        self.publish_keys(*signers, by=self.trusted or signers)
        self.trusted = list(signers)

    def add_key(self) -> CryptoSigner:
        """As `keys create` and `keys activate`: bots are told of it, and it signs beside the others."""
        new = create_key()
        self.change_keys(*self.trusted, new)
        self.signers = list(self.trusted)
        return new

    def retire_key(self, old: CryptoSigner) -> None:
        """As `keys retire`."""
        self.change_keys(*(signer for signer in self.trusted if signer is not old))
        self.signers = list(self.trusted)

    def replace_key(self) -> CryptoSigner:
        """A whole rotation; returns the key that signs now."""
        old = self.trusted[0]
        new = self.add_key()
        self.retire_key(old)
        return new

    def forge(self, release: Release, revision: int, *thieves: CryptoSigner, **fields: Any) -> None:
        """Serve a snapshot of this release that those keys sign, in place of the service's own."""
        genuine = self.release, self.revision
        self.point_at(release, revision=revision)
        document = self.document() | fields
        self.release, self.revision = genuine
        sealed = Envelope(json.dumps(document).encode(), PAYLOAD_TYPE, {})
        for thief in thieves:
            sealed.sign(thief)
        self.answers[SIGNED_PATH] = (200, {}, json.dumps(sealed.to_dict()).encode())

    def stop_attacking(self) -> None:
        self.answers.clear()
        self.raw_answers.clear()

    def send_endlessly(self, path: str) -> None:
        """Data without end, under a length that nobody could store."""

        def answer() -> Iterator[bytes]:
            yield (
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n" % HIGHEST
            )
            while True:
                yield b'{"payload": "' + b"x" * 65_536

        self.raw_answers[path] = answer

    def send_slowly(self, path: str, head: bytes = b"", tail: bytes = b"x") -> None:
        """`head`, then `tail` again and again, one byte at a time."""

        def answer() -> Iterator[bytes]:
            yield head
            while True:
                for byte in tail:
                    yield bytes([byte])
                    time.sleep(STEP_S)

        self.raw_answers[path] = answer


Attack = Callable[[RepositorySimulator], None]
