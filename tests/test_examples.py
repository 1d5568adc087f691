"""The scripts in examples/ do what their first lines say."""

from __future__ import annotations

import json
import math
import runpy
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from tests import decoders

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_rounding_noise_is_uniform_over_one_of_sixteen_levels(tmp_path):
    decoders.save(tmp_path / "model", None, hidden_size=64, intermediate_size=96)
    main = runpy.run_path(str(EXAMPLES / "rounding_noise.py"))["main"]
    main(str(tmp_path / "model"), str(tmp_path / "noisy"), 3)
    before, after = (AutoModelForCausalLM.from_pretrained(tmp_path / name).state_dict() for name in ("model", "noisy"))
    shares = []
    for name, weight in before.items():
        if weight.ndim < 2 or "layers." not in name:
            assert torch.equal(weight, after[name]), name
            continue
        blocks, noisy = (each.view(each.shape[0], -1, 32) for each in (weight, after[name]))
        level = (blocks.amax(-1, keepdim=True) - blocks.amin(-1, keepdim=True)) / 15
        shares.append(((noisy - blocks) / level).flatten())
    share = torch.cat(shares)
    assert share.abs().max() <= 0.5001
    assert abs(share.mean().item()) < 0.01
    assert abs(share.std().item() - 1 / math.sqrt(12)) < 0.005


def test_text_is_cut_into_pieces_without_the_held_out_documents(tmp_path):
    texts = [" ".join(f"{name}{number}" for number in range(50)) for name in "abcdefghij"]
    (tmp_path / "text.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    main = runpy.run_path(str(EXAMPLES / "text_pieces.py"))["main"]
    main(str(tmp_path / "out.jsonl"), str(tmp_path / "text.jsonl"), 20)
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    pieces = [row["prompt"] + row["completion"] for row in rows]
    assert len(pieces) == 2 * 9  # two whole pieces of each document but the one that is held out
    assert pieces[0] == " ".join(texts[0].split()[:20])
    assert pieces[1] == " ".join(texts[0].split()[20:40])
    assert rows[1]["prompt"] == " ".join(texts[0].split()[20:28])
