"""The form with a reason, and handing a form to a service whose refusal it shows."""

from collections.abc import Callable
from typing import Any, TypeVar

from django import forms

from common.errors import DomainError
from common.reasons import REASON_LIMIT

T = TypeVar("T")


class ReasonForm(forms.Form):
    """The reason of a decision. It is recorded in the audit history with the name."""

    reason = forms.CharField(
        max_length=REASON_LIMIT,
        widget=forms.Textarea(attrs={"rows": 2}),
        help_text="Recorded in the audit history with your name.",
        error_messages={"required": "Give a reason: it is recorded in the audit history."},
    )


def submit(form: forms.Form, service: Callable[[dict[str, Any]], T]) -> tuple[T | None, int]:
    """What the service answers to the cleaned data, and 200. For a form that is wrong or refused None and the page's status.

    The form then shows its errors.
    """
    if not form.is_valid():
        return None, 400
    try:
        return service(form.cleaned_data), 200
    except DomainError as refusal:
        show_refusal(form, refusal)
        return None, refusal.status


def show_refusal(form: forms.Form, refusal: DomainError) -> None:
    """Show the error of a service at its field, or at the top of the form."""
    field = refusal.field if refusal.field in form.fields else None
    form.add_error(field, refusal.message)
