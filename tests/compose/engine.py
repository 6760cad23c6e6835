"""A container engine of the trial's own, beside any that the machine has, and gone at its end.

It has its own folder, socket and network bridges, and changes no firewall rule.
"""

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.compose.errors import TrialFailed

START_SECONDS = 60
STOP_SECONDS = 120
REPOSITORY = Path(__file__).resolve().parents[2]


class Engine:
    """A running dockerd. `docker` and `compose` return what the command printed, and raise TrialFailed with its errors."""

    def __init__(self, folder: Path, compose: Path) -> None:
        self.folder, self._compose = folder, compose
        self._daemon: subprocess.Popen[bytes] | None = None
        self.socket = f"unix://{folder / 'docker.sock'}"
        self.environment: dict[str, str] = {}
        """Of Compose: the values that docker-compose.yml asks for."""

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        command = ["dockerd", "--host", self.socket, "--pidfile", str(self.folder / "pid")]
        command += ["--data-root", str(self.folder / "data"), "--exec-root", str(self.folder / "exec")]
        command += ["--iptables=false", "--ip6tables=false", "--bridge=none"]
        with (self.folder / "dockerd.log").open("ab") as log:
            self._daemon = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + START_SECONDS
        while subprocess.run(["docker", "-H", self.socket, "info"], capture_output=True).returncode:
            if time.monotonic() > deadline:
                raise TrialFailed(f"dockerd does not answer; see {self.folder / 'dockerd.log'}.")
            time.sleep(0.5)

    def stop(self) -> None:
        """End this daemon, by its own pid, and wait for it: it stops its containers."""
        if self._daemon is not None:
            self._daemon.terminate()
            self._daemon.wait(STOP_SECONDS)
            self._daemon = None
            self._unmount()

    def _unmount(self) -> None:
        """What the daemon leaves mounted: the network of builds, for one. Its folder could not be deleted."""
        mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
        for point in reversed(mounts):
            if Path(point).is_relative_to(self.folder):
                run(["umount", point])

    def docker(self, *words: str, **variables: str) -> str:
        return run(["docker", "-H", self.socket, *words], {**variables, "DOCKER_BUILDKIT": "0"})

    def has_image(self, tag: str) -> bool:
        return bool(self.docker("images", "--quiet", tag))

    def compose_version(self) -> str:
        return run([str(self._compose), "version", "--short"])

    def build(self, tag: str, dockerfile: Path, folder: Path, *options: str) -> str:
        """Build an image with the network of this machine."""
        words = [
            "build",
            "--network=host",
            "--quiet",
            "--tag",
            tag,
            "--file",
            str(dockerfile),
            *options,
            str(folder),
        ]
        return self.docker(*words)

    def compose(self, *words: str, typed: str = "", **variables: str) -> str:
        """Of this repository's docker-compose.yml, with the values in `environment` alone: no .env file is read."""
        command = [
            str(self._compose),
            "--project-directory",
            str(REPOSITORY),
            "--env-file",
            "/dev/null",
            *words,
        ]
        return run(command, {**self.environment, **variables, "DOCKER_HOST": self.socket}, typed)


def run(
    command: Sequence[str],
    variables: Mapping[str, str] | None = None,
    typed: str = "",
    folder: Path = REPOSITORY,
) -> str:
    """What the command printed, run in this folder. Raises TrialFailed with the end of its errors."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CRPBOT_")}
    environment = {**kept, **(variables or {})}
    done = subprocess.run(command, cwd=folder, env=environment, input=typed, capture_output=True, text=True)
    if done.returncode:
        raise TrialFailed(
            f"{' '.join(command)} ended with {done.returncode}:\n{(done.stdout + done.stderr)[-4000:]}"
        )
    return done.stdout.strip()
