"""What a person may fill in about policies. What it means is checked by the services."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django import forms

from common.forms import ReasonForm
from gates.catalogue.gate import AnyGate, Choice, Group, Threshold
from gates.catalogue.live import DEFAULT_LIVE, LIVE_GATES, LiveGate, get_live_thresholds
from gates.catalogue.registry import BASELINE_NAMES, GATES, GROUPS, LIVE
from gates.models import GatePolicy

ROLE = "role"
ROLES = {
    "required": "required: decides",
    "advisory": "advisory: shown only",
    "absent": "not in the policy",
}


@dataclass(frozen=True)
class GateFields:
    """One gate's part of the form. Only a gate beyond the baseline has a `role`."""

    gate: AnyGate
    role: forms.BoundField | None
    thresholds: list[forms.BoundField]

    @property
    def remark(self) -> str:
        """What a gate without a role does."""
        if isinstance(self.gate, LiveGate):
            return "A breach by most bots pins the fallback." if self.gate.is_tripwire else "Warns only."
        return "Always required."

    @property
    def has_changed(self) -> bool:
        """Whether it differs from the policy it begins from."""
        fields = [*self.thresholds, *([self.role] if self.role else [])]
        return any(str(field.value()) != str(field.initial) or field.errors for field in fields)


class ProposalForm(ReasonForm):
    """A new policy as changes of another: which gates decide, and the thresholds of gates and live gates."""

    field_order = None

    def __init__(self, policy: GatePolicy, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._document = policy.document
        for gate in GATES.values():
            entry = self._document["gates"].get(gate.name)
            if gate.name not in BASELINE_NAMES:
                self.fields[_get_name(gate, ROLE)] = _build_role_field(entry)
            self._add_thresholds(gate, entry or {})
        for name, thresholds in get_live_thresholds(self._document).items():
            self._add_thresholds(LIVE_GATES[name], thresholds)

    def _add_thresholds(self, gate: AnyGate, entry: Mapping[str, Any]) -> None:
        for parameter in gate.parameters:
            value = entry.get(parameter.name, parameter.default)
            self.fields[_get_name(gate, parameter.name)] = _build_field(parameter, value)

    @property
    def groups(self) -> list[tuple[Group, list[GateFields]]]:
        """Every gate with something to fill in, under its group."""
        groups: list[tuple[Group, Sequence[AnyGate]]] = [(group, group.gates) for group in GROUPS]
        groups.append((LIVE, [LIVE_GATES[name] for name in DEFAULT_LIVE]))
        return [(group, [self._get_fields(gate) for gate in gates]) for group, gates in groups]

    def _get_fields(self, gate: AnyGate) -> GateFields:
        role = _get_name(gate, ROLE)
        thresholds = [self[_get_name(gate, parameter.name)] for parameter in gate.parameters]
        return GateFields(gate, self[role] if role in self.fields else None, thresholds)

    @property
    def document(self) -> dict[str, Any]:
        """The policy that these fields make, ready for `propose_policy`.

        A policy without a live part that keeps the default thresholds gets none: it means the same as before.
        """
        live = {name: self._read_thresholds(LIVE_GATES[name]) for name in DEFAULT_LIVE}
        roles = {gate: self.cleaned_data.get(_get_name(gate, ROLE), "required") for gate in GATES.values()}
        entries = {
            gate.name: {"required": role == "required", **self._read_thresholds(gate)}
            for gate, role in roles.items()
            if role != "absent"
        }
        has_live_part = "live" in self._document or live != DEFAULT_LIVE
        return {**self._document, "gates": entries, **({"live": live} if has_live_part else {})}

    def _read_thresholds(self, gate: AnyGate) -> dict[str, Any]:
        return {p.name: self.cleaned_data[_get_name(gate, p.name)] for p in gate.parameters}


def _get_name(gate: AnyGate, part: str) -> str:
    """The name of a field: of the role of a gate, or of one of its thresholds."""
    return f"live.{gate.name}.{part}" if isinstance(gate, LiveGate) else f"{gate.name}.{part}"


def _build_role_field(entry: Mapping[str, Any] | None) -> forms.Field:
    role = "absent" if entry is None else "required" if entry.get("required") else "advisory"
    return forms.ChoiceField(label="Role", choices=list(ROLES.items()), initial=role)


def _build_field(parameter: Threshold | Choice, value: Any) -> forms.Field:
    label = parameter.name.replace("_", " ").capitalize()
    if isinstance(parameter, Choice):
        choices = [(word, word.replace("_", " ")) for word in parameter.words]
        return forms.ChoiceField(label=label, choices=choices, initial=value, help_text=parameter.help)
    kind = forms.IntegerField if parameter.is_whole else forms.FloatField
    bounds: dict[str, Any] = {"min_value": parameter.minimum, "max_value": parameter.maximum}
    return kind(
        label=label,
        initial=value,
        widget=forms.NumberInput(attrs={"step": 1 if parameter.is_whole else "any"}),
        help_text=f"{parameter.help} Default {_format(parameter.default)}; {_format(parameter.minimum)} to "
        f"{_format(parameter.maximum)} is allowed, {parameter.is_looser_when} is looser.",
        **bounds,
    )


def _format(value: float) -> str:
    """ "1,000,000" or "0.3333"."""
    return f"{round(value, 4):,.10g}".replace("-", "−")
