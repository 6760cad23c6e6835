from django.conf import settings
from django.contrib.auth.models import AbstractUser
from django.contrib.sessions.backends.base import SessionBase
from django.contrib.sessions.base_session import AbstractBaseSession
from django.db import models
from django.utils.module_loading import import_string

from accounts.roles import Role, Scope


class User(AbstractUser):
    """A person's account, or a service account. A superuser has no role by that alone."""

    is_service = models.BooleanField(default=False, help_text="a bot or another program: it cannot sign in")
    counts_as = models.ForeignKey(
        "self",
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="others",
        help_text="the first account of the same person, where this is another one",
    )


class RoleGrant(models.Model):
    """A role that a person holds; the audit has who granted it and when."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="grants")
    role = models.CharField(max_length=16, choices=[(role.value, role.value) for role in Role])

    class Meta:
        constraints = [models.UniqueConstraint(fields=["user", "role"], name="a_role_is_held_once")]

    def __str__(self) -> str:
        return f"{self.user.username} as {self.role}"


class ApiToken(models.Model):
    """A secret that a program sends instead of a password; only its hash is stored."""

    user = models.ForeignKey(User, on_delete=models.PROTECT, related_name="tokens")
    name = models.CharField(max_length=100)
    scope = models.CharField(max_length=16, choices=[(scope.value, scope.value) for scope in Scope])
    digest = models.CharField(max_length=64, unique=True)
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(null=True, blank=True, help_text="none where it never expires")
    last_used_at = models.DateTimeField(null=True, blank=True, help_text="to the minute")
    revoked_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return f"{self.user.username}'s {self.scope} token {self.name}"


class Session(AbstractBaseSession):
    """A browser's session, with the person who signed in; accounts/identity/session_store.py reads and writes it."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, null=True, related_name="sessions")

    @classmethod
    def get_session_store_class(cls) -> type[SessionBase]:
        store: type[SessionBase] = import_string(f"{settings.SESSION_ENGINE}.SessionStore")
        return store


class FailedCode(models.Model):
    """A wrong code of a second factor: many within an hour end the guessing."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="failed_codes")
    at = models.DateTimeField(db_index=True)

    def __str__(self) -> str:
        return f"a wrong code for {self.user.username}"
