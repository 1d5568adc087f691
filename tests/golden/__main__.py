"""Makes golden numbers anew: `python -m tests.golden [NAME ...]`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.golden.compared import write
from tests.golden.runs import RUNS

for name in sys.argv[1:] or RUNS:
    with tempfile.TemporaryDirectory() as folder:
        print(name, "→", write(name, RUNS[name](Path(folder))), flush=True)
