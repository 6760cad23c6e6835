"""What a person may fill in about policies. What it means is checked by the services."""

from typing import Any

from django import forms

from accounts.forms import ReasonForm
from gates.models import GatePolicy
from gates.rules import GATES
from gates.verdicts import Choice, Threshold


class ProposalForm(ReasonForm):
    """A new policy, written as changes of the thresholds of another."""

    field_order = None

    def __init__(self, policy: GatePolicy, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._document = policy.document
        for gate in GATES.values():
            for parameter in gate.parameters:
                stands = self._document["gates"].get(gate.name, {}).get(parameter.name, parameter.seed)
                self.fields[f"{gate.name}.{parameter.name}"] = _field(parameter, stands)

    @property
    def gates(self) -> list[tuple[str, list[forms.BoundField]]]:
        """The fields under the gates they belong to; gates without thresholds have none."""
        of = {name: [self[f] for f in self.fields if f.startswith(f"{name}.")] for name in GATES}
        return [(name, fields) for name, fields in of.items() if fields]

    @property
    def document(self) -> dict[str, Any]:
        """The policy these fields make, ready for `propose_policy`."""
        entries = {name: dict(entry) for name, entry in self._document["gates"].items()}
        for name, value in self.cleaned_data.items():
            gate, _, parameter = name.partition(".")
            if parameter:
                entries.setdefault(gate, {"required": True})[parameter] = value
        return {"format": self._document["format"], "gates": entries}


def _field(parameter: Threshold | Choice, stands: Any) -> forms.Field:
    label = parameter.name.replace("_", " ").capitalize()
    if isinstance(parameter, Choice):
        choices = [(word, word.replace("_", " ")) for word in parameter.words]
        return forms.ChoiceField(label=label, choices=choices, initial=stands)
    kind = forms.IntegerField if parameter.is_whole else forms.FloatField
    bounds: dict[str, Any] = {"min_value": parameter.least, "max_value": parameter.greatest}
    return kind(
        label=label,
        initial=stands,
        widget=forms.NumberInput(attrs={"step": 1 if parameter.is_whole else "any"}),
        help_text=f"The plan says {parameter.seed:g}; {parameter.is_looser_when} is looser.",
        **bounds,
    )
