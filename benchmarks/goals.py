"""The goals of a benchmark. One that is missed is printed, with the difference."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Goal:
    """A measured value with its limit."""

    name: str
    value: float
    limit: float
    unit: str = "times"
    is_maximum: bool = False

    @property
    def is_met(self) -> bool:
        """False for NaN."""
        return self.value <= self.limit if self.is_maximum else self.value >= self.limit

    def __str__(self) -> str:
        bound = "at most" if self.is_maximum else "at least"
        return (
            f"goal missed: {self.name} is {self.value:,.2f} {self.unit}, {bound} {self.limit:,g} is required:"
            f" {abs(self.value - self.limit) / self.limit:.0%} off"
        )


def check_goals(*goals: Goal) -> int:
    """Prints every missed goal. Returns the exit status: 1 if one is missed, else 0."""
    missed = [goal for goal in goals if not goal.is_met]
    for goal in missed:
        print(goal)
    return 1 if missed else 0
