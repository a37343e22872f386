"""`safe-policy dataset split-safe`: what methods that learn without cost labels are given."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safe_policy_core.data.split_safe import split_safe
from safe_policy_core.errors import ConfigurationError


@dataclass
class SplitSafe:
    """Data without cost labels: a few safe demonstrations, the rest unlabelled, and the true costs kept apart."""

    data: tuple[Path, ...]
    """Episode files (*.h5) or folders of them; or one DSRL file, by path or by its task."""

    out: Path
    """New folder."""

    demonstrations: int = 12
    """Safe episodes that are given as such."""

    cost_limit: float = 0.0
    """An episode is safe when its costs add up to at most this."""

    share: float = 0.5
    """The demonstrations are drawn from this share of the safe episodes, those of the highest returns."""

    even_returns: bool = False
    """In each tenth of the returns as many safe as unsafe episodes stay unlabelled, the others are left out: then
    the return tells nothing of safety, as DSPO's return-agnostic term supposes. For experiments: it uses the truth."""

    seed: int = 0

    def run(self) -> dict[str, Any]:
        """Writes the split. Returns counts."""
        if self.demonstrations < 1:
            raise ConfigurationError(f"demonstrations: expected at least 1, got {self.demonstrations}")
        if not 0 < self.share <= 1:
            raise ConfigurationError(f"share: expected more than 0 and at most 1, got {self.share}")
        return split_safe(self.data, self.out, demonstrations=self.demonstrations, cost_limit=self.cost_limit,
                          share=self.share, even_returns=self.even_returns, seed=self.seed)
