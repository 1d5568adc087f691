"""`python -m tests.faults.fuzz KIND [COUNT [BEGIN]]`: the inputs of a kind, from that number on, with what is wrong as it is found."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path


def _main(kind: str, count: int | None = None, begin: int = 0) -> int:
    from tests.faults.fuzz.judge import examine
    from tests.faults.fuzz.kinds import KINDS, inputs_of
    from tests.faults.fuzz.materials import make
    from tests.faults.fuzz.runner import in_child, preload

    preload()
    cases = list(inputs_of(kind, KINDS[kind].slow if count is None else count))[begin:]
    with tempfile.TemporaryDirectory(prefix="fuzz-materials-") as place:
        make(Path(place), KINDS[kind].needs, in_child)
        found = examine(cases, Path(place), tell=lambda text: print(f"\n{text}", flush=True))
    print(f"{kind}: {found}", flush=True)
    return int(bool(found.wrong))


if __name__ == "__main__":
    os.environ["HF_HUB_OFFLINE"] = "1"
    sys.exit(_main(sys.argv[1], *map(int, sys.argv[2:])))
