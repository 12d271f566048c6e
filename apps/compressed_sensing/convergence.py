"""What is said of answers that aren't what was asked for: solvers that stopped early, penalties that leave nothing.

Both are warnings of their own, so that a program can tell them from others. Verbs and tables, which recover in parts,
gather them and say one line in the end.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

SOLVED = ("converged", "gap", "objective", "violation")
"""What solvers say of each signal's end, in `Recovered.details` and in the columns of a run."""


class NotSolved(ConvergenceWarning):
    """A solver stopped before its answer was within the tolerance."""


class NothingLeft(UserWarning):
    """A penalty is so large that every signal recovered is 0."""


@dataclass
class Unsolved:
    """Counts the signals that a solver left unsolved, over any number of parts."""

    total: int = 0
    left: int = 0
    gap: float = 0.0
    """The largest of theirs, as a share of the objective."""
    violation: float | None = None
    """The largest of theirs, where the problem has a constraint on the measurements [units of y]."""

    def add(self, details: Mapping[str, Tensor | Sequence[float]]) -> Unsolved:
        """Counts signals by what a method says of each, `Recovered.details`; those of which it says no end are none.

        Returns:
            Itself.
        """
        done, gaps, objectives, violations = ([float(value) for value in details.get(name, ())] for name in SOLVED)
        self.total += len(done)
        for i, solved in enumerate(done):
            if solved:
                continue
            self.left += 1
            if gaps and objectives:
                self.gap = max(self.gap, abs(gaps[i]) / max(abs(objectives[i]), 1e-300))
            if violations:
                self.violation = max(self.violation or 0.0, violations[i])
        return self

    def words(self, advice: str) -> str | None:
        """Says how many signals are left, and what to do; None where there are none."""
        if not self.left:
            return None
        beside = "" if self.violation is None else f", largest violation of epsilon {self.violation:.2g}"
        return (
            f"{self.left:,} of {self.total:,} signals are not solved to the tolerance, largest gap {self.gap:.2g} "
            f"times the objective{beside}: {advice}"
        )


@contextmanager
def gathered() -> Iterator[list[str]]:
    """Takes the warnings of this module in; the list has the words of `NothingLeft` then, `Unsolved` the others'."""
    told: list[str] = []
    with warnings.catch_warnings(record=True) as found:
        for category in (NotSolved, NothingLeft):
            warnings.simplefilter("always", category)
        yield told
    for one in found:
        if issubclass(one.category, NothingLeft):
            told.append(str(one.message))
        elif not issubclass(one.category, NotSolved):
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
