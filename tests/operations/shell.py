"""The shell of an administrator: commands of the operations pages, carried out on this test's service.

A command of the service runs in this process, whichever container the page names for it. What starts and stops containers
runs in `make compose-trial` alone; here its words must name what docker-compose.yml has.
"""

import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import yaml
from django.core.management import call_command, get_commands, load_command_class

from tests.processes import REPOSITORY

SERVICES = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())["services"]
COMMAND = re.compile(r"^ {4,}((?:manage\.py|docker|install|python3) .+)$", re.MULTILINE)
ELSEWHERE = ("build", "up", "ps", "stop", "restart", "logs", "df", "stats")
"""What only the container trial carries out."""
OPTIONS = {"--tail": 1, "--scale": 1, "-e": 1, "--rm": 0, "-d": 0, "--no-deps": 0, "-h": 0, "--no-stream": 0}


def list_commands(page: Path) -> list[str]:
    """The commands of a page, in their order."""
    return COMMAND.findall(page.read_text())


@dataclass
class Shell:
    """Where commands run, and what the person who types them knows."""

    folder: Path
    known: dict[str, str] = field(default_factory=dict)
    """What stands for something else on the page, such as the number of a token."""
    actor: str = ""
    typed: str = "correct horse battery staple\n"
    """What is typed where a command asks, such as a password."""

    def run(self, command: str, environment: Mapping[str, str] | None = None) -> tuple[int, str]:
        """The exit status and what was written. Commands for containers answer 0 and nothing, once they name what exists."""
        words = [self.known.get(word, word) for word in shlex.split(command)]
        match words:
            case ["docker", "compose", *rest]:
                return self._compose(rest)
            case ["docker", *rest]:
                assert rest[0] in ELSEWHERE, command
                return 0, ""
            case ["manage.py", *rest]:
                return self._manage(rest, environment or {})
        words = [sys.executable if word == "python3" else word for word in words]
        done = subprocess.run(words, cwd=self.folder, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    def _compose(self, words: list[str]) -> tuple[int, str]:
        verb, given, rest = words[0], dict[str, str](), words[1:]
        while rest and rest[0] in OPTIONS:
            option, *rest = rest
            if OPTIONS[option]:
                value, *rest = rest
                if option == "-e" and "=" in value:
                    name, _, value = value.partition("=")
                    given[name] = value
        if verb in ("exec", "run") and rest[1:3] == ["python", "manage.py"]:
            assert rest[0] in SERVICES
            return self._manage(rest[3:], given)
        if words == ["run", "--rm", "migrate"]:
            return self._manage(["migrate", "--verbosity", "0"], {})
        assert verb in ELSEWHERE or (verb == "exec" and rest[1] == "df"), words
        named = rest[:1] if verb == "exec" else rest
        assert set(named) <= set(SERVICES), words
        return 0, ""

    def _manage(self, words: list[str], given: Mapping[str, str]) -> tuple[int, str]:
        verb, *arguments = words
        parser = load_command_class(get_commands()[verb], verb).create_parser("manage.py", verb)
        takes_actor = any("--as" in action.option_strings for action in parser._actions)
        if self.actor and takes_actor and "CRPBOT_TOKEN" not in os.environ:
            arguments = [*arguments, "--as", self.actor]
        out = io.StringIO()
        database = {name: value for name, value in given.items() if name != "CRPBOT_DATABASE_URL"}
        with mock.patch.dict(os.environ, database), mock.patch("sys.stdin", io.StringIO(self.typed)):
            try:
                with redirect_stdout(out), redirect_stderr(out):
                    call_command(verb, *arguments, stdout=out, stderr=out)
            except SystemExit as ended:
                return int(ended.code or 0), out.getvalue()
        return 0, out.getvalue()
