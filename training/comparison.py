"""The numbers in a card beside those measured now."""

from collections.abc import Iterator
from dataclasses import dataclass

from service.bundle.manifest import Evaluation, Interval, Measure


@dataclass(frozen=True, slots=True)
class Compared:
    """One number, measured twice."""

    name: str
    before: float | None
    """As the card has it; None: it has no such number."""

    now: Measure

    @property
    def differs(self) -> bool:
        """Whether the number in the card lies outside the interval of the one measured now."""
        return self.before is not None and not self.now.low <= self.before <= self.now.high


def compare(before: Evaluation | None, now: Evaluation) -> tuple[Compared, ...]:
    """Return each number of `now` that has an interval beside the one of `before`."""
    known = {name: measure.value for name, measure in _numbers(before)} if before else {}
    return tuple(Compared(name, known.get(name), measure) for name, measure in _numbers(now))


def as_text(compared: tuple[Compared, ...]) -> str:
    """Return a table: number, in the card, now with its interval, and a mark where they differ."""
    width = max(len(each.name) for each in compared)
    lines = [f"{'':{width}}  {'in the card':>11}  {'now':>8}  95 % interval"]
    for each in compared:
        before = "-" if each.before is None else f"{each.before:.5f}"
        mark = "  differs" if each.differs else ""
        now = each.now
        lines.append(
            f"{each.name:{width}}  {before:>11}  {now.value:8.5f}  "
            f"{now.low:.5f} to {now.high:.5f}{mark}"
        )
    return "\n".join(lines)


def _numbers(evaluation: Evaluation) -> Iterator[tuple[str, Measure]]:
    between = evaluation.intervals
    yield "accuracy", evaluation.accuracy
    yield "NLL", _measured(evaluation.nll, between.nll if between else None)
    yield "ECE", _measured(evaluation.ece, between.ece if between else None)
    yield "AURC", _measured(evaluation.aurc, between.aurc if between else None)
    for row in evaluation.table:
        yield f"risk {row.max_error:.1%}, answered", row.coverage
        yield f"risk {row.max_error:.1%}, error", row.risk
    for condition in evaluation.conditions:
        name = condition.name.replace("_", " ")
        yield f"{name}, accuracy", condition.accuracy
        yield f"{name}, answered", condition.answered
        yield f"{name}, error", condition.risk
    for family in evaluation.outliers:
        yield f"{family.name}, answered", family.answered
        if family.both_labels is not None:
            yield f"{family.name}, both labels are candidates", family.both_labels


def _measured(value: float, between: Interval | None) -> Measure:
    """Return a number with its interval; older cards have none, and then it is not looked at."""
    low, high = (between.low, between.high) if between else (value, value)
    return Measure(value=value, low=low, high=high)
