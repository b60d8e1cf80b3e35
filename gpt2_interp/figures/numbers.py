"""Numbers and intervals as text, for tables of the report and for the texts shown when a reader points at a cell."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

NOTHING = "–"


def number(value: float) -> str:
    """Four significant digits, no exponent for ordinary sizes."""
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def rounded(value: float | None) -> str:
    """Three significant digits, no exponent for ordinary sizes; a dash for None."""
    return NOTHING if value is None else number(float(f"{value:.3g}"))


def signed(value: float | None) -> str:
    """Three significant digits with their sign; a dash for None."""
    return NOTHING if value is None else f"{value:+.3g}"


@dataclass(frozen=True)
class Cell:
    """A number with its interval, as a table has it. low, high: None where there is none; `write`: a number as text.

    remark: what stands in parentheses where there are no bounds.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    write: Callable[[float], str] = number
    remark: str = ""

    @property
    def text(self) -> str:
        """The number alone; a dash where there is none."""
        return NOTHING if self.value is None else self.write(self.value)

    @property
    def bounds(self) -> str:
        """Return "38.0 to 42.2", or the remark."""
        if self.value is None or self.low is None or self.high is None or math.isnan(self.low + self.high):
            return self.remark
        return f"{self.write(self.low)} to {self.write(self.high)}"

    def __str__(self) -> str:
        return f"{self.text} ({self.bounds})" if self.bounds else self.text
