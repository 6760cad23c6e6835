"""The history of alarms."""

from django.db import models

from deploy.rules import AlarmName, Severity


class Alarm(models.Model):
    """One alarm condition, from when it was first detected to when it was over.

    Whether a condition holds now is detected each time (deploy.alarms.detect). This is the history, with the times.
    """

    name = models.CharField(max_length=20, choices=[(a.value, a.value) for a in AlarmName])
    severity = models.CharField(max_length=10, choices=[(s.value, s.value) for s in Severity])
    sentence = models.TextField(help_text="what is wrong")
    remedy = models.TextField(help_text="what to do")
    raised_at = models.DateTimeField()
    cleared_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["name"], condition=models.Q(cleared_at=None), name="an_alarm_is_raised_once"
            )
        ]

    def __str__(self) -> str:
        return f"alarm {self.pk} ({self.name})"

    @property
    def is_critical(self) -> bool:
        return self.severity == Severity.CRITICAL
