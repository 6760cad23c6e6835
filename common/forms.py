"""The form with a reason, and showing the error of a service in a form."""

from django import forms

from common.errors import DomainError
from common.reasons import REASON_LIMIT


class ReasonForm(forms.Form):
    """The reason of a decision. It is recorded in the audit history with the name."""

    reason = forms.CharField(
        max_length=REASON_LIMIT,
        widget=forms.Textarea(attrs={"rows": 2}),
        help_text="Recorded in the audit history with your name.",
        error_messages={"required": "Give a reason: it is recorded in the audit history."},
    )


def show_refusal(form: forms.Form, refusal: DomainError) -> None:
    """Show the error of a service at its field, or at the top of the form."""
    field = refusal.field if refusal.field in form.fields else None
    form.add_error(field, refusal.message)
