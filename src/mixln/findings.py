"""The root of all findings: what results show, as data. `mixln.report.wording` makes sentences of them."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One statement about a result: everything that a sentence needs, and no sentence."""

    @property
    def kind(self) -> str:
        """The name of its class in kebab case, which tells it from others in JSON: `runner-up`."""
        return re.sub(r"(?<!^)(?=[A-Z])", "-", type(self).__name__).lower()
