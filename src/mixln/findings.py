"""Base class of findings: statements about results, as data. `mixln.report.wording` turns them into sentences."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One statement about a result, as data without text."""

    @property
    def kind(self) -> str:
        """Class name in kebab case, for example `runner-up`; identifies the class in JSON."""
        return re.sub(r"(?<!^)(?=[A-Z])", "-", type(self).__name__).lower()
