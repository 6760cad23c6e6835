"""What a person may fill in about policies. What it means is checked by the services."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from django import forms

from common.forms import ReasonForm
from gates.catalogue.gate import Choice, Gate, Threshold
from gates.catalogue.groups import GROUPS, LIVE, Group, group_of
from gates.catalogue.live import DEFAULT_LIVE, LIVE_GATES, LiveGate, live_part
from gates.catalogue.meanings import meaning
from gates.models import GatePolicy
from gates.policy import BASELINE_NAMES, GATES

STANDING = "standing"
STANDINGS = {
    "required": "required: decides",
    "advisory": "advisory: tells only",
    "absent": "left out: not asked",
}


@dataclass(frozen=True)
class GateFields:
    """One gate's part of the form. Only a gate beyond the baseline has a `standing`; `remark` says what others do."""

    gate: Gate | LiveGate
    remark: str
    standing: forms.BoundField | None
    thresholds: list[forms.BoundField]

    @property
    def about(self) -> str:
        return (self.gate.judge.__doc__ or "").splitlines()[0]

    @property
    def has_changed(self) -> bool:
        """Whether it stands otherwise than in the policy it begins from."""
        fields = [*self.thresholds, *([self.standing] if self.standing else [])]
        return any(str(field.value()) != str(field.initial) or field.errors for field in fields)


class ProposalForm(ReasonForm):
    """A new policy, written as changes of another: which gates decide, by which thresholds, and what bots may show live."""

    field_order = None

    def __init__(self, policy: GatePolicy, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._document = policy.document
        for gate in GATES.values():
            entry = self._document["gates"].get(gate.name)
            if gate.name not in BASELINE_NAMES:
                self.fields[f"{gate.name}.{STANDING}"] = _standing_field(entry)
            for parameter in gate.parameters:
                stands = (entry or {}).get(parameter.name, parameter.seed)
                self.fields[f"{gate.name}.{parameter.name}"] = _field(gate.name, parameter, stands)
        thresholds = live_part(self._document)
        for live, threshold in _live_thresholds():
            stands = thresholds[live.name][threshold.name]
            self.fields[_live(live, threshold)] = _field(f"live {live.name}", threshold, stands)

    @property
    def groups(self) -> list[tuple[Group, list[GateFields]]]:
        """Every gate that has something to fill in, under the group it belongs to."""
        measured = [
            (group, [self._of(gate) for gate in GATES.values() if group_of(gate.name) == group])
            for group in GROUPS
        ]
        live = [self._of_live(gate) for gate in LIVE_GATES.values() if gate.parameters]
        return [*measured, (LIVE, live)]

    def _of(self, gate: Gate) -> GateFields:
        standing = f"{gate.name}.{STANDING}"
        is_chosen = standing in self.fields
        return GateFields(
            gate,
            "" if is_chosen else "Always required.",
            self[standing] if is_chosen else None,
            [self[f"{gate.name}.{parameter.name}"] for parameter in gate.parameters],
        )

    def _of_live(self, gate: LiveGate) -> GateFields:
        remark = "A breach by most bots pins the fallback." if gate.is_tripwire else "Warns only."
        return GateFields(gate, remark, None, [self[_live(gate, each)] for each in gate.parameters])

    @property
    def document(self) -> dict[str, Any]:
        """The policy these fields make, ready for `propose_policy`."""
        entries = {gate.name: self._entry(gate) for gate in GATES.values()}
        present = {name: entry for name, entry in entries.items() if entry is not None}
        return {**self._document, "gates": present, **self._live_part()}

    def _live_part(self) -> dict[str, Any]:
        """Nothing for a policy that had none and is to have the usual thresholds still: it says the same as before."""
        live: dict[str, dict[str, Any]] = {name: {} for name in DEFAULT_LIVE}
        for gate, parameter in _live_thresholds():
            live[gate.name][parameter.name] = self.cleaned_data[_live(gate, parameter)]
        return {"live": live} if "live" in self._document or live != DEFAULT_LIVE else {}

    def _entry(self, gate: Gate) -> dict[str, Any] | None:
        standing = self.cleaned_data.get(f"{gate.name}.{STANDING}", "required")
        if standing == "absent":
            return None
        thresholds = {p.name: self.cleaned_data[f"{gate.name}.{p.name}"] for p in gate.parameters}
        return {"required": standing == "required", **thresholds}


def _live_thresholds() -> Iterator[tuple[LiveGate, Threshold]]:
    for gate in LIVE_GATES.values():
        for parameter in gate.parameters:
            yield gate, parameter


def _live(gate: LiveGate, parameter: Threshold) -> str:
    return f"live.{gate.name}.{parameter.name}"


def _standing_field(entry: Mapping[str, Any] | None) -> forms.Field:
    stands = "absent" if entry is None else "required" if entry.get("required") else "advisory"
    return forms.ChoiceField(label="What it does", choices=list(STANDINGS.items()), initial=stands)


def _field(gate: str, parameter: Threshold | Choice, stands: Any) -> forms.Field:
    label = parameter.name.replace("_", " ").capitalize()
    about = meaning(gate, parameter.name)
    if isinstance(parameter, Choice):
        choices = [(word, word.replace("_", " ")) for word in parameter.words]
        return forms.ChoiceField(label=label, choices=choices, initial=stands, help_text=about)
    kind = forms.IntegerField if parameter.is_whole else forms.FloatField
    bounds: dict[str, Any] = {"min_value": parameter.least, "max_value": parameter.greatest}
    return kind(
        label=label,
        initial=stands,
        widget=forms.NumberInput(attrs={"step": 1 if parameter.is_whole else "any"}),
        help_text=f"{about} {_plain(parameter.seed)} to begin with; {_plain(parameter.least)} to "
        f"{_plain(parameter.greatest)} is allowed, {parameter.is_looser_when} is looser.".strip(),
        **bounds,
    )


def _plain(value: float) -> str:
    """ "1,000,000", "0.3333": as a person writes it."""
    return f"{round(value, 4):,.10g}".replace("-", "−")
