"""The service's whole story, told through the proxy: from people and keys to the model that a bot runs, and a pin."""

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlcore.data.simulate import COINS, simulate
from tests.compose.bot import Bot, prepare_environment
from tests.compose.errors import TrialFailed
from tests.compose.report import Report
from tests.compose.service import Service, wait_until

BARS, DRIFT, SEED, EPOCHS = 20_000, 1.6, 10, 6
"""A market that a few epochs learn."""
HISTORY_ROWS = 2_200
RELEASE_SECONDS = 900
PIN_SECONDS = 30
"""Of a bot on a busy machine; the report says how long it took."""
PEOPLE: Mapping[str, tuple[str, ...]] = {
    "ada": ("--role", "administrator", "--token", "administrator"),  # the first one, who adds the others
    "olivia": ("--role", "operator", "--token", "operator"),
    "anna": ("--role", "approver", "--token", "approver"),
    "vera": ("--role", "viewer"),
    "bot": ("--service", "--token", "bot"),
}


class Story:
    """Each method is a step of the report."""

    def __init__(self, service: Service, folder: Path, report: Report) -> None:
        self._service, self._folder, self._report = service, folder, report
        self._passwords: dict[str, str] = {}
        self.fallback = self.candidate = 0

    def tell(self) -> Bot:
        """Returns the running bot, on the candidate."""
        step = self._report.step
        with step("people, roles and tokens, by command in a web container") as note:
            note(self._add_people())
        with step("a person signs in on the page; what is plain HTTP is redirected") as note:
            note(self._sign_in())
        with step("the first signing key, over the API") as note:
            note(self._make_key())
        with step("candles of three coins, uploaded through the proxy") as note:
            note(self._upload_candles())
        with step("v5 and v6_enhanced trained and measured; inherited, and the fallback registered") as note:
            note(self._take_over())
        with step("v7_fixed launched by one person, trained, measured, approved by another") as note:
            note(self._release_candidate())
        with step("a bot with the wheel of `make wheel`, over TLS") as note:
            bot = self._start_bot()
            note(f"its first decision comes from release {bot.decided[-1].release}")
        return bot

    def pin(self, bot: Bot) -> str:
        """Pin by the API, and restore the candidate; both times the bot follows."""
        pinned, restored = self.pin_only(bot), self.restore(bot)
        return f"the bot is on the fallback after {pinned:.1f} s, and back after {restored:.1f} s"

    def pin_only(self, bot: Bot) -> float:
        self.post_pin()
        return bot.wait_for(self.fallback, PIN_SECONDS)

    def restore(self, bot: Bot) -> float:
        self.post_restore()
        return bot.wait_for(self.candidate, PIN_SECONDS)

    def post_pin(self) -> int:
        """Returns the new revision, as the answer names it."""
        return int(self._decide("pointer/pin/", "the trial pins")["revision"])

    def post_restore(self) -> int:
        """Returns the new revision, as the move after the answer names it."""
        self._decide(
            f"releases/{self.candidate}/restore/", "the trial restores", revision=self.get_revision()
        )
        return self.get_revision()

    def get_revision(self) -> int:
        return int(self._service.ask("olivia", "GET", "moves/")["results"][0]["revision"])

    def launch(self, line: str, **options: Any) -> int:
        body = {"line": line, **options}
        return int(self._service.ask("olivia", "POST", "releases/", json=body)["id"])

    def wait_for_state(self, release: int, *states: str) -> str:
        found = ""

        def has_settled() -> bool:
            nonlocal found
            found = self._service.ask("olivia", "GET", f"releases/{release}/")["state"]
            return found != "building"

        wait_until(has_settled, f"release {release} settles", RELEASE_SECONDS)
        if found not in states:
            reason = self._service.ask("olivia", "GET", f"releases/{release}/")["reason"]
            raise TrialFailed(f"Release {release} is {found}, not {' or '.join(states)}: {reason}")
        return found

    def _add_people(self) -> str:
        for name, options in PEOPLE.items():
            self._passwords[name] = secrets.token_urlsafe(16)
            author = self._service.tokens.get("ada", "")
            added = self._service.manage(
                "people", "--add", name, *options, token=author, typed=self._passwords[name] + "\n"
            )
            if added["token"]:
                self._service.tokens[name] = added["token"]
        return f"{', '.join(PEOPLE)}; tokens for {', '.join(self._service.tokens)}"

    def _sign_in(self) -> str:
        with self._service.client() as browser:
            browser.get("/sign-in/")
            form = {
                "username": "vera",
                "password": self._passwords["vera"],
                "csrfmiddlewaretoken": browser.cookies["csrftoken"],
            }
            signed_in = browser.post("/sign-in/", data=form, headers={"Referer": f"{self._service.url}/"})
            board = browser.get("/")
        if signed_in.status_code != 302 or board.status_code != 200:
            raise TrialFailed(f"Signing in answers {signed_in.status_code}, the board {board.status_code}.")
        if "strict-transport-security" not in board.headers:
            raise TrialFailed("The board is sent without Strict-Transport-Security.")
        return "the board answers with HSTS over TLS"

    def _make_key(self) -> str:
        made = self._service.ask("anna", "POST", "keys/", json={"reason": "the first key"})
        self._service.ask(
            "anna", "POST", f"keys/{made['key_id']}/activate/", json={"reason": "the first key"}
        )
        self._service.public_key = self._service.manage("keys", "export")["public_key"]
        return "created and activated by the approver"

    def _upload_candles(self) -> str:
        folder = self._folder / "candles"
        folder.mkdir(parents=True, exist_ok=True)
        sizes = []
        for coin in COINS:
            market = simulate(coin, BARS, DRIFT, SEED)
            market.tail(HISTORY_ROWS).write_csv(folder / f"{coin}.csv")
            body = market.write_csv().encode()
            sizes.append(len(body))
            kept = self._service.ask(
                "olivia",
                "POST",
                "datasets/",
                files={"file": (f"{coin}.csv", body)},
                data={"coin": coin, "is_simulated": "true"},
            )
            if kept["verdict"] != "passed":
                raise TrialFailed(f"The candles of {coin} are {kept['verdict']}: {kept['checks']}")
        return f"{BARS:,} bars each, {sum(sizes) / 1e6:.1f} MB in all; each passed the candle checks"

    def _take_over(self) -> str:
        approver = self._service.tokens["anna"]
        self.fallback = self.launch("v5", purpose="fallback")
        self._service.manage("release", "--line", "v6_enhanced", "--purpose", "inherited", "--epochs", str(EPOCHS),
                             "--wait", token=self._service.tokens["olivia"])  # fmt: skip
        inherited = self._service.ask("olivia", "GET", "releases/?line=v6_enhanced")["results"][0]["id"]
        self.wait_for_state(self.fallback, "standby")
        self._service.manage("inherit", str(inherited), "--reason", "what the bots run", token=approver)
        self._service.manage(
            "register_fallback", str(self.fallback), "--reason", "the known-good line", token=approver
        )
        return f"release {inherited} is revision {self.get_revision()}, release {self.fallback} the fallback"

    def _release_candidate(self) -> str:
        self.candidate = self.launch("v7_fixed", epochs=EPOCHS)
        self.wait_for_state(self.candidate, "awaiting_approval")
        self._decide(f"releases/{self.candidate}/approve/", "every gate passed", revision=self.get_revision())
        return f"release {self.candidate} is live, revision {self.get_revision()}"

    def _start_bot(self) -> Bot:
        folder = self._folder / "bot"
        folder.mkdir(exist_ok=True)
        self._python = prepare_environment(folder)
        bot = self.build_bot(folder / "models")
        bot.start()
        bot.wait_for(self.candidate, 60)
        return bot

    def build_bot(self, models: Path, **environment: str) -> Bot:
        """A bot in the environment of the first one."""
        files = [self._folder / "candles" / f"{coin}.csv" for coin in COINS]
        return Bot(self._python, self._service, files, models, **environment)

    def _decide(self, path: str, reason: str, **body: Any) -> Any:
        return self._service.ask("anna", "POST", path, json={"reason": reason, **body})
