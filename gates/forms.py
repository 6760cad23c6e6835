"""What a person may fill in about policies. What it means is checked by the services."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from django import forms

from common.forms import ReasonForm
from gates.catalogue.gate import AnyGate, Choice, Gate, Group, Threshold
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
    """One gate's part of the form. Only a gate beyond the baseline has a `role`; `remark` says what others do."""

    gate: AnyGate
    remark: str
    role: forms.BoundField | None
    thresholds: list[forms.BoundField]

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
                self.fields[f"{gate.name}.{ROLE}"] = _build_role_field(entry)
            self._add_fields(gate.name, gate, entry or {})
        thresholds = get_live_thresholds(self._document)
        for live in _list_live_gates():
            self._add_fields(f"live.{live.name}", live, thresholds[live.name])

    def _add_fields(self, prefix: str, gate: AnyGate, entry: Mapping[str, Any]) -> None:
        for parameter in gate.parameters:
            value = entry.get(parameter.name, parameter.default)
            self.fields[f"{prefix}.{parameter.name}"] = _build_field(parameter, value)

    @property
    def groups(self) -> list[tuple[Group, list[GateFields]]]:
        """Every gate with something to fill in, under its group."""
        return [
            *((group, [self._get_gate_fields(gate) for gate in group.gates]) for group in GROUPS),
            (LIVE, [self._get_live_fields(gate) for gate in _list_live_gates()]),
        ]

    def _get_gate_fields(self, gate: Gate) -> GateFields:
        role = f"{gate.name}.{ROLE}"
        has_role = role in self.fields
        return GateFields(
            gate,
            "" if has_role else "Always required.",
            self[role] if has_role else None,
            [self[f"{gate.name}.{parameter.name}"] for parameter in gate.parameters],
        )

    def _get_live_fields(self, gate: LiveGate) -> GateFields:
        remark = "A breach by most bots pins the fallback." if gate.is_tripwire else "Warns only."
        fields = [self[f"live.{gate.name}.{parameter.name}"] for parameter in gate.parameters]
        return GateFields(gate, remark, None, fields)

    @property
    def document(self) -> dict[str, Any]:
        """The policy that these fields make, ready for `propose_policy`."""
        entries = {gate.name: self._build_entry(gate) for gate in GATES.values()}
        present = {name: entry for name, entry in entries.items() if entry is not None}
        return {**self._document, "gates": present, **self._build_live_part()}

    def _build_live_part(self) -> dict[str, Any]:
        """Nothing for a policy without a live part that keeps the default thresholds: it means the same as before."""
        live = {gate.name: self._read_thresholds(f"live.{gate.name}", gate) for gate in _list_live_gates()}
        return {"live": live} if "live" in self._document or live != DEFAULT_LIVE else {}

    def _build_entry(self, gate: Gate) -> dict[str, Any] | None:
        role = self.cleaned_data.get(f"{gate.name}.{ROLE}", "required")
        if role == "absent":
            return None
        return {"required": role == "required", **self._read_thresholds(gate.name, gate)}

    def _read_thresholds(self, prefix: str, gate: AnyGate) -> dict[str, Any]:
        return {p.name: self.cleaned_data[f"{prefix}.{p.name}"] for p in gate.parameters}


def _list_live_gates() -> Iterator[LiveGate]:
    """Those that have thresholds."""
    return (gate for gate in LIVE_GATES.values() if gate.parameters)


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
