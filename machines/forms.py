"""What a person may fill in about machines. What it means is checked by the services."""

from django import forms

from common.forms import ReasonForm
from machines.rules import MAX_MONTHLY_USD, MAX_USD_PER_HOUR, Market


class PriceForm(ReasonForm):
    """What an hour of an instance type costs in a region."""

    instance_type = forms.CharField(max_length=32, help_text="As in g5.xlarge.")
    region = forms.CharField(max_length=32, help_text="As in us-east-1.")
    market = forms.ChoiceField(
        choices=[(market.value, market.value) for market in Market],
        help_text="A spot machine without a price of its own may cost as much as one on demand.",
    )
    usd_per_hour = forms.DecimalField(
        min_value=0, max_value=MAX_USD_PER_HOUR, decimal_places=4, label="US dollars per hour"
    )
    field_order = ("instance_type", "region", "market", "usd_per_hour", "reason")


class LimitForm(ReasonForm):
    """What all machines of a month may cost."""

    usd = forms.DecimalField(
        min_value=0,
        max_value=MAX_MONTHLY_USD,
        decimal_places=2,
        label="US dollars per month",
        help_text="With 0, none is started.",
    )
    field_order = ("usd", "reason")
