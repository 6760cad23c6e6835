"""The form with a reason, and sending what a form holds to a service."""

from collections.abc import Callable

from django import forms
from django.http import HttpResponse

from common.errors import DomainError, FactorNeeded
from common.reasons import REASON_LIMIT


class ReasonForm(forms.Form):
    """The reason of a decision. It is recorded in the audit history with the name."""

    reason = forms.CharField(
        max_length=REASON_LIMIT,
        widget=forms.Textarea(attrs={"rows": 2}),
        help_text="Recorded in the audit history with your name.",
        error_messages={"required": "Give a reason: it is recorded in the audit history."},
    )


def submit(
    form: forms.Form, act: Callable[[], HttpResponse], show: Callable[[int], HttpResponse]
) -> HttpResponse:
    """`act` on a valid form. Otherwise `show` the form again with a status, each error at its field or at the top."""
    if not form.is_valid():
        return show(400)
    try:
        return act()
    except FactorNeeded:
        raise  # the page for it comes first, and continues with this request
    except DomainError as refusal:
        form.add_error(refusal.field if refusal.field in form.fields else None, refusal.message)
        return show(refusal.status)
