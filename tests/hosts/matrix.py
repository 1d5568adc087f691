"""What a placement on a host family must do, and the table of docs/hosts.md that says so for every pair.

`python -m tests.hosts.matrix` writes the table; the tests hold every cell against what happens.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers.utils.logging import disable_progress_bar

import mixln
from mixln.errors import PlacementError
from mixln.hosts import HOSTS
from tests.hosts.families import config_of, inputs_of
from tests.tiny import EVERY

DOCUMENT = Path(__file__).parents[2] / "docs" / "hosts.md"
SECTIONS = r"(?m)^(?=## Families)"
"""Where the sections begin that :mod:`tests.hosts.counted` writes."""
YES = "✓"
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


def exercise(host: str, placement: str) -> str:
    """Builds the placement on the host, trains a step, saves, loads, and generates with a cache.

    :returns: `✓`, or why the host cannot carry the placement.
    :raises AssertionError: if it is carried and something of this does not hold.
    """
    torch.manual_seed(0)
    try:
        model = mixln.from_config(config_of(host), placement=placement)
    except PlacementError as error:
        return str(error)
    mixln.set_step(model, 1500)  # with `prores`, some branches are whole and others grow
    inputs = inputs_of(host)
    trains(model.train(), inputs)
    model.eval()
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        again = mixln.from_pretrained(folder)
    assert type(again) is type(model)
    with torch.no_grad():
        assert torch.equal(again(**inputs).logits, model(**inputs).logits)
    if "input_ids" in inputs:
        generates(model, inputs["input_ids"], inputs["attention_mask"])
    return YES


def trains(model: Any, inputs: dict[str, Any]) -> None:
    """One short step against the gradient lowers the loss, and no gradient is missing or infinite."""
    before = model(**inputs).loss
    before.backward()
    norm = torch.stack([p.grad.norm() for p in model.parameters()]).norm()
    assert torch.isfinite(norm)
    assert norm > 0
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= 1e-3 / norm * parameter.grad
        assert model(**inputs).loss < before


@torch.no_grad()
def generates(model: Any, ids: Tensor, mask: Tensor) -> None:
    """Greedy continuation of left-padded texts, beyond a sliding window of 4: with a cache as without one."""
    cached, uncached = (
        model.generate(
            ids, attention_mask=mask, do_sample=False, max_new_tokens=4, use_cache=use, pad_token_id=0,
            output_logits=True, return_dict_in_generate=True,
        )
        for use in (True, False)
    )  # fmt: skip
    assert torch.equal(cached.sequences, uncached.sequences)
    torch.testing.assert_close(torch.stack(cached.logits), torch.stack(uncached.logits), **CLOSE)


def table() -> str:
    """The document, from what happens when every placement is put on every host."""
    reasons: list[str] = []
    lines = [f"| placement | {' | '.join(HOSTS)} |", f"|---|{'---|' * len(HOSTS)}"]
    for placement in EVERY:
        cells = []
        for host in HOSTS:
            outcome = exercise(host, placement)
            if outcome != YES and outcome not in reasons:
                reasons.append(outcome)
            cells.append(outcome if outcome == YES else f"[{reasons.index(outcome) + 1}]")
        lines.append(f"| `{placement}` | {' | '.join(cells)} |")
    notes = [f"{number}. {reason}" for number, reason in enumerate(reasons, start=1)]
    return "\n".join([INTRODUCTION, *lines, "", *(["Refused:", "", *notes, ""] if notes else [])])


INTRODUCTION = """# Every placement on every host family

Written by `python -m tests.hosts.matrix`, and held against what happens by `tests/hosts/test_matrix.py`. ✓ means, for a tiny model of
the family: it is built, a step against the gradient lowers its loss, it saves, loads to equal logits, and generates with a cache what it
generates without one (left-padded, beyond a sliding window where the family has one). A number names the reason of a refusal.

With `stock` the logits are those of the family's own class, bit for bit, and the gradients to float32 rounding
(`tests/hosts/test_families.py`), for each head: causal LM and sequence classification, and image classification for ViT.

The families below the table are those whose records are read from transformers' code. `python -m tests.hosts.counted` lists them, with
the reason for every other; `pytest -m slow tests/hosts/test_all_families.py` trains, saves, loads and generates with each.
"""

if __name__ == "__main__":
    torch.set_num_threads(1)
    disable_progress_bar()
    _, *sections = re.split(SECTIONS, DOCUMENT.read_text("utf-8"))
    DOCUMENT.write_text("\n".join([table(), *sections]), "utf-8")
