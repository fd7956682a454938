"""How far it is: a bar while it goes on, a sentence when it is done."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from service.offline.engines import Found


class Tally:
    """Counts answers."""

    def __init__(self) -> None:
        self._started_s = time.perf_counter()
        self.answered = 0
        self.reasons: Counter[str] = Counter()
        """Of each "don't know"."""

        self.errors = 0

    @property
    def rows(self) -> int:
        """How many there were, errors included."""
        return self.answered + self.reasons.total() + self.errors

    def count(self, found: Found) -> None:
        """Count a part's rows."""
        for row in found.rows:
            if "error" in row:
                self.errors += 1
            elif row["reason"] is None:
                self.answered += 1
            else:
                self.reasons[row["reason"]] += 1

    def sentence(self) -> str:
        """Return what a person wants to know in the end."""
        parts = [f"{self.answered:,} answered", f"{self.reasons.total():,} don't know"]
        if self.reasons:
            told = (f"{reason} {count:,}" for reason, count in self.reasons.most_common())
            parts[-1] += f" ({', '.join(told)})"
        if self.errors:
            parts.append(f"{self.errors:,} not readable")
        speed = self.rows / (time.perf_counter() - self._started_s)
        unit = "row" if self.rows == 1 else "rows"
        return f"{self.rows:,} {unit}: {', '.join(parts)}; {speed:,.0f} rows/s"


@contextmanager
def bar(tally: Tally, total_bytes: int | None) -> Iterator[Callable[[Found], None]]:
    """Draw a bar on standard error, moved on by each part; without a total it only counts."""
    from rich.console import Console  # noqa: PLC0415  a service has no use for bars
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    columns = (BarColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=total_bytes)

        def move(found: Found) -> None:
            said = f"{tally.rows:,} rows, {tally.reasons.total():,} don't know"
            progress.update(task, advance=found.part.size_bytes, description=said)

        yield move
