from django.contrib.auth.models import AbstractUser
from django.db import models

from accounts.roles import Role, Scope


class User(AbstractUser):
    """A person, or the account of a bot. A superuser has no role by that alone."""


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
