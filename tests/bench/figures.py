"""Results: rounds of nomnom and of its peers, medians, and ratios of rounds."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median
from typing import Any


@dataclass
class Report:
    """Prints each result immediately, and keeps all of them."""

    figures: dict[str, Any] = field(default_factory=dict[str, Any])

    def title(self, text: str) -> None:
        """Print the title of a part."""
        print(f"\n== {text}", flush=True)

    def line(self, name: str, value: Any, text: str) -> None:
        """Print and keep one result."""
        self.figures[name] = value
        print(f"  {name}: {text}", flush=True)

    def compare(self, part: str, ours: list[float], peers: dict[str, list[float]], unit: str) -> None:
        """Print the medians of nomnom and of each peer, and the median ratio of corresponding rounds."""
        self.line(f"{part}: nomnom", ours, f"{median(ours):,.0f} {unit} (from {min(ours):,.0f} to {max(ours):,.0f})")
        for peer, theirs in peers.items():
            ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
            self.line(
                f"{part}: {peer}",
                theirs,
                f"{median(theirs):,.0f} {unit} (from {min(theirs):,.0f} to {max(theirs):,.0f}); "
                f"nomnom / {peer} = {median(ratios):.2f} (from {min(ratios):.2f} to {max(ratios):.2f})",
            )
