"""Single sign-on with a real provider process: who gets which account and roles, and what of it cannot be forged."""

import sys
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import jwt
import pytest
from allauth.mfa.models import Authenticator
from allauth.socialaccount.models import SocialAccount
from allauth.socialaccount.providers.oauth2.client import OAuth2Error
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from django.test import Client

from accounts import services
from accounts.identity import oidc
from accounts.models import User
from accounts.roles import Role
from audit.models import AuditEvent
from tests import factories
from tests.accounts import second_factors as app
from tests.deploy.commands import run
from tests.loopback import answers, free_port
from tests.processes import start, wait_until

CLIENT_ID = "crpbot"
pytestmark = [pytest.mark.django_db, pytest.mark.processes, pytest.mark.slow]


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory, django_db_setup: None) -> Iterator[str]:
    """The address of a provider process."""
    port, log = free_port(), tmp_path_factory.mktemp("provider") / "log"
    provider = start(
        sys.executable, "-m", "oidc_provider_mock", "--port", str(port), "--require-nonce", "true", log=log
    )
    address = f"http://localhost:{port}"
    wait_until(lambda: answers(f"{address}/.well-known/openid-configuration"), what=f"the provider: {log}")
    yield address
    provider.stop()


@pytest.fixture(autouse=True)
def configured(issuer: str, settings: Any) -> None:
    configure(settings, issuer)


def configure(settings: Any, issuer: str) -> None:
    settings.OIDC_ISSUER, settings.OIDC_NAME, settings.OIDC_ROLE_CLAIM = issuer, "the desk", "groups"
    settings.OIDC_ROLES = {"gate-operators": Role.OPERATOR, "gate-approvers": Role.APPROVER}
    entry = {"provider_id": "oidc", "name": "the desk", "client_id": CLIENT_ID, "secret": "a secret"}
    apps = [{**entry, "settings": {"server_url": issuer}}]
    settings.SOCIALACCOUNT_PROVIDERS = {
        "openid_connect": {**settings.SOCIALACCOUNT_PROVIDERS["openid_connect"], "APPS": apps}
    }


def set_claims(issuer: str, subject: str, **claims: Any) -> None:
    """What the provider says of this subject from now on."""
    httpx.put(f"{issuer}/users/{subject}", json=claims).raise_for_status()


def begin(browser: Client, **query: str) -> str:
    """Where the browser is sent to sign in at the provider."""
    answer = browser.get("/sign-in/oidc/", query)
    assert answer.status_code == 302
    return str(answer["Location"])


def authorise(address: str, subject: str) -> str:
    """The person signs in at the provider; where it sends the browser back to, without the host."""
    answer = httpx.post(address, data={"sub": subject})
    assert answer.status_code == 302, answer.text
    back = urlsplit(answer.headers["Location"])
    return f"{back.path}?{back.query}"


def sign_in(subject: str, browser: Client | None = None) -> tuple[Client, Any]:
    browser = browser or Client()
    return browser, browser.get(authorise(begin(browser), subject))


def read_notice(browser: Client) -> str:
    return app.read_errors(browser.get("/sign-in/"))


def held(name: str) -> set[str]:
    return set(User.objects.get(username=name).grants.values_list("role", flat=True))


def is_signed_in(browser: Client) -> bool:
    return browser.get("/tokens/").status_code == 200


def test_a_newcomer_gets_an_account_with_the_roles_of_their_claims(issuer: str) -> None:
    set_claims(issuer, "s-1", preferred_username="olga", groups=["gate-operators", "other"])
    browser, answer = sign_in("s-1")
    assert answer["Location"] == "/"
    assert is_signed_in(browser)
    assert held("olga") == {"operator"}
    events = AuditEvent.objects.filter(actor="single sign-on").order_by("seq")
    assert [event.kind for event in events] == ["user.created", "user.identity_connected", "role.granted"]


def test_a_claim_that_is_gone_ends_the_role_and_its_tokens(issuer: str) -> None:
    set_claims(issuer, "s-2", preferred_username="olga", groups=["gate-operators", "gate-approvers"])
    sign_in("s-2")
    raw = factories.token(User.objects.get(username="olga"), "approver")
    set_claims(issuer, "s-2", preferred_username="olga", groups="gate-operators")
    sign_in("s-2")
    assert held("olga") == {"operator"}
    found = services.authenticate(raw)
    assert found is not None
    assert found[1].roles == frozenset()


def test_a_role_granted_by_hand_does_not_outlive_the_next_sign_in(issuer: str) -> None:
    set_claims(issuer, "s-3", preferred_username="olga", groups=["gate-operators"])
    sign_in("s-3")
    services.grant(User.objects.get(username="olga"), Role.APPROVER, actor="admin")
    sign_in("s-3")
    assert held("olga") == {"operator"}


def test_without_a_role_claim_roles_are_granted_by_hand(issuer: str, settings: Any) -> None:
    settings.OIDC_ROLE_CLAIM = ""
    set_claims(issuer, "s-4", preferred_username="olga", groups=["gate-approvers"])
    browser, _ = sign_in("s-4")
    assert held("olga") == set()
    services.grant(User.objects.get(username="olga"), Role.VIEWER, actor="admin")
    sign_in("s-4")
    assert held("olga") == {"viewer"}
    assert is_signed_in(browser)


def test_a_newcomer_without_any_role_gets_no_account(issuer: str) -> None:
    set_claims(issuer, "s-5", preferred_username="norma", groups=["other"])
    browser, answer = sign_in("s-5")
    assert answer["Location"] == "/sign-in/"
    assert "gives you no role here" in read_notice(browser)
    assert not User.objects.exists()


@pytest.mark.parametrize("name", ["anna", "аnna", "gate", ""], ids=["taken", "lookalike", "reserved", "none"])
def test_nobody_takes_a_name_by_single_sign_on(issuer: str, name: str) -> None:
    anna = factories.person("anna", "approver")
    set_claims(issuer, "s-6", preferred_username=name, groups=["gate-operators"])
    browser, _ = sign_in("s-6")
    assert "No account could be made for you" in read_notice(browser)
    assert not is_signed_in(browser)
    assert list(User.objects.all()) == [anna]


def test_an_administrator_connects_an_existing_account(issuer: str) -> None:
    anna = factories.person("anna", "viewer")
    factories.person("olga")
    assert run("people", user="anna", subject="s-7")[0] == 0
    assert run("people", user="olga", subject="s-7")[0] == 1, "it is anna's already"
    set_claims(issuer, "s-7", preferred_username="somebody", groups=["gate-approvers"])
    browser, _ = sign_in("s-7")
    assert f"{anna.username}</a>" in browser.get("/").content.decode()
    assert held("anna") == {"approver"}


def test_two_accounts_with_one_verified_address_are_one_person(issuer: str) -> None:
    for subject, name in (("s-8", "olga"), ("s-9", "oleg")):
        set_claims(
            issuer,
            subject,
            preferred_username=name,
            groups=["gate-operators"],
            email="O@x.org",
            email_verified=True,
        )
        sign_in(subject)
    assert User.objects.get(username="oleg").counts_as == User.objects.get(username="olga")
    assert AuditEvent.objects.filter(kind="user.linked", actor="single sign-on").count() == 1


def test_an_address_that_nobody_verified_links_nobody(issuer: str) -> None:
    for subject, name in (("s-10", "olga"), ("s-11", "oleg")):
        set_claims(issuer, subject, preferred_username=name, groups=["gate-operators"], email="o@x.org")
        sign_in(subject)
    assert not User.objects.exclude(counts_as=None).exists()


def test_who_has_a_second_factor_gives_it_here_too(issuer: str) -> None:
    set_claims(issuer, "s-12", preferred_username="olga", groups=["gate-approvers"])
    sign_in("s-12")
    secret = app.set_up_app(User.objects.get(username="olga"))
    browser, answer = sign_in("s-12")
    assert answer["Location"] == "/sign-in/code/"
    assert not is_signed_in(browser)
    browser.post("/sign-in/code/", {"code": app.show_code(secret)})
    assert is_signed_in(browser)


def test_who_signed_in_at_the_provider_sets_up_a_factor_without_a_password(issuer: str) -> None:
    set_claims(issuer, "s-13", preferred_username="olga", groups=["gate-approvers"])
    browser, _ = sign_in("s-13")
    secret = browser.get("/account/app/").content.decode().split('id="app-key">')[1].split("<")[0]
    browser.post("/account/app/", {"code": app.show_code(secret)})
    assert Authenticator.objects.filter(user__username="olga", type="totp").exists()


def test_a_closed_account_stays_closed(issuer: str) -> None:
    set_claims(issuer, "s-14", preferred_username="olga", groups=["gate-operators"])
    sign_in("s-14")
    services.close_account(User.objects.get(username="olga"), actor="admin")
    browser, _ = sign_in("s-14")
    assert "closed" in read_notice(browser)
    assert not is_signed_in(browser)


def test_a_service_account_is_not_connected(issuer: str) -> None:
    services.create_user("robot", password=None, roles=[], actor="admin", is_service=True)
    assert run("people", user="robot", subject="s-15")[0] == 1
    assert not SocialAccount.objects.exists()


class TestAttacks:
    @pytest.fixture(autouse=True)
    def olga(self, issuer: str) -> None:
        set_claims(issuer, "victim", preferred_username="olga", groups=["gate-approvers"])

    def assert_refused(self, browser: Client, answer: Any) -> None:
        assert answer.status_code == 302
        assert answer["Location"] == "/sign-in/"
        assert "Signing in with the desk failed" in read_notice(browser)
        assert not is_signed_in(browser)
        assert not User.objects.exists()

    def test_an_answer_with_another_state(self) -> None:
        browser = Client()
        back = authorise(begin(browser), "victim")
        code = parse_qs(urlsplit(back).query)["code"][0]
        self.assert_refused(
            browser, browser.get("/sign-in/oidc/callback/", {"code": code, "state": "invented"})
        )

    def test_an_answer_without_a_state(self) -> None:
        browser = Client()
        code = parse_qs(urlsplit(authorise(begin(browser), "victim")).query)["code"][0]
        self.assert_refused(browser, browser.get("/sign-in/oidc/callback/", {"code": code}))

    def test_the_answer_of_another_browser(self) -> None:
        own, thief = Client(), Client()
        back = authorise(begin(own), "victim")
        begin(thief)
        self.assert_refused(thief, thief.get(back))

    def test_an_answer_that_is_used_twice(self) -> None:
        browser, thief = Client(), Client()
        back = authorise(begin(browser), "victim")
        browser.get(back)
        assert is_signed_in(browser)
        assert thief.get(back)["Location"] == "/sign-in/"
        assert not is_signed_in(thief)

    def test_the_code_of_another_request_of_the_same_browser(self) -> None:
        """Its state is right, but the ID token answers the other request."""
        browser = Client()
        first = parse_qs(urlsplit(authorise(begin(browser), "victim")).query)
        second = parse_qs(urlsplit(begin(browser)).query)
        back = {"code": first["code"][0], "state": second["state"][0]}
        self.assert_refused(browser, browser.get("/sign-in/oidc/callback/", back))

    def test_a_refusal_of_the_provider(self) -> None:
        browser = Client()
        state = parse_qs(urlsplit(begin(browser)).query)["state"][0]
        answer = browser.get("/sign-in/oidc/callback/", {"error": "access_denied", "state": state})
        assert answer["Location"] == "/sign-in/"
        assert not is_signed_in(browser)

    def test_a_request_that_asks_for_more_or_for_another_nonce(self) -> None:
        asked = parse_qs(
            urlsplit(
                begin(Client(), auth_params="nonce=mine&prompt=none", scope="admin", process="connect")
            ).query
        )
        assert asked["nonce"] != ["mine"] and "prompt" not in asked
        assert set(asked["scope"][0].split()) == {"openid", "profile", "email"}
        assert asked["code_challenge_method"] == ["S256"]

    def test_a_sign_in_that_leads_to_another_site(self) -> None:
        browser = Client()
        back = authorise(begin(browser, next="https://evil.example/"), "victim")
        assert browser.get(back)["Location"] == "/"

    def test_a_provider_that_calls_itself_otherwise(self, settings: Any) -> None:
        browser = Client()
        back = authorise(begin(browser), "victim")
        settings.OIDC_ISSUER = "https://another.example"
        self.assert_refused(browser, browser.get(back))

    def test_a_provider_that_does_not_answer(self, settings: Any) -> None:
        configure(settings, f"http://localhost:{free_port()}")
        browser = Client()
        self.assert_refused(browser, browser.get("/sign-in/oidc/"))

    def test_another_provider_than_the_configured_one(self, settings: Any) -> None:
        assert Client().get("/sign-in/google/").status_code == 404
        settings.OIDC_ISSUER = ""
        assert Client().get("/sign-in/oidc/").status_code == 404


KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PUBLIC = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
KEYS = {"keys": [{**jwt.algorithms.RSAAlgorithm.to_jwk(KEY.public_key(), as_dict=True), "kid": "k1"}]}
SOUND = {"iss": "https://id.example", "aud": CLIENT_ID, "sub": "s", "nonce": "n"}


def make_token(*, key: Any = KEY, algorithm: str = "RS256", kid: str = "k1", **changes: Any) -> str:
    now = int(time.time())
    claims = {**SOUND, "iat": now, "exp": now + 300, **changes}
    kept = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(kept, key, algorithm=algorithm, headers={"kid": kid})


def verify(token: str) -> dict[str, Any]:
    return oidc.verify_id_token(token, keys=KEYS, issuer=SOUND["iss"], client_id=CLIENT_ID, nonce="n")


def sign_with_public_key() -> str:
    """A library would refuse to make this one: HMAC with the provider's public key."""
    import base64
    import hashlib
    import hmac

    body = make_token().split(".")[1]
    header = base64.urlsafe_b64encode(b'{"alg":"HS256","kid":"k1","typ":"JWT"}').rstrip(b"=").decode()
    mac = hmac.new(PUBLIC.encode(), f"{header}.{body}".encode(), hashlib.sha256).digest()
    return f"{header}.{body}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


FORGED = {
    "none at all": lambda: "",
    "no token": lambda: "no.token.really",
    "unsigned": lambda: make_token(key=None, algorithm="none"),
    "signed by another key": lambda: make_token(key=OTHER_KEY),
    "signed with the public key as a secret": sign_with_public_key,
    "an unknown key": lambda: make_token(kid="k2"),
    "a signature that was cut off": lambda: make_token().rsplit(".", 1)[0] + ".",
    "for another application": lambda: make_token(aud="another"),
    "for two, issued to the other": lambda: make_token(aud=[CLIENT_ID, "another"], azp="another"),
    "of another issuer": lambda: make_token(iss="https://evil.example"),
    "expired": lambda: make_token(exp=int(time.time()) - 120),
    "without an end": lambda: make_token(exp=None),
    "issued in the future": lambda: make_token(iat=int(time.time()) + 600),
    "of another request": lambda: make_token(nonce="another"),
    "without a nonce": lambda: make_token(nonce=None),
    "about nobody": lambda: make_token(sub=None),
}


@pytest.mark.parametrize("forged", FORGED)
def test_an_id_token_is_refused_that_is(forged: str) -> None:
    with pytest.raises(OAuth2Error):
        verify(FORGED[forged]())


def test_a_sound_id_token_is_accepted() -> None:
    assert verify(make_token())["sub"] == "s"
    assert verify(make_token(aud=[CLIENT_ID, "another"], azp=CLIENT_ID))["sub"] == "s"


def test_no_id_token_without_a_nonce_of_ours() -> None:
    with pytest.raises(OAuth2Error):
        oidc.verify_id_token(
            make_token(nonce=""), keys=KEYS, issuer=SOUND["iss"], client_id=CLIENT_ID, nonce=""
        )


@pytest.mark.parametrize(
    ("claims", "roles"),
    [
        ({"groups": ["gate-operators"]}, {Role.OPERATOR}),
        ({"groups": "gate-approvers"}, {Role.APPROVER}),
        ({"groups": ["GATE-APPROVERS", 7, None]}, set()),
        ({"groups": {"gate-approvers": True}}, set()),
        ({"groups": None}, set()),
        ({}, set()),
    ],
    ids=["a list", "a text", "others", "an object", "nothing", "absent"],
)
def test_the_claim_gives_only_roles_that_are_mapped(claims: dict[str, Any], roles: set[Role]) -> None:
    assert oidc.read_roles(claims) == frozenset(roles)


def test_the_claim_may_be_within_another(settings: Any) -> None:
    settings.OIDC_ROLE_CLAIM = "realm_access.roles"
    assert oidc.read_roles({"realm_access": {"roles": ["gate-approvers"]}}) == frozenset({Role.APPROVER})
