"""Placing needs torch, transformers, safetensors and what these need, and no other package."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import mixln

PROGRAM = """
from importlib.util import find_spec
import mixln
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config

assert not [name for name in ("accelerate", "datasets", "matplotlib", "pyarrow", "scipy", "tyro") if find_spec(name)]

sizes = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_hidden_layers": 3}
config = LlamaConfig(vocab_size=64, eos_token_id=None, **sizes)
model = mixln.from_config(config, placement="mix(0.5)")
ids = torch.randint(64, (4, 12), generator=torch.Generator().manual_seed(0))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
losses = []
for _ in range(3):
    loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    losses.append(loss.item())
assert losses[2] < losses[0], losses
model.save_pretrained(sys.argv[2])
for loaded in mixln.from_pretrained(sys.argv[2]), AutoModelForCausalLM.from_pretrained(sys.argv[2]):
    options = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 0}
    assert torch.equal(loaded.generate(ids, **options), model.eval().generate(ids, **options))
again = mixln.place(mixln.unplace(mixln.from_config(config, placement="stock")))
assert again.config.model_type == "placed_llama"
derived = mixln.from_config(Qwen2Config(vocab_size=64, num_key_value_heads=2, **sizes), placement="hybrid*")
assert derived(input_ids=ids, labels=ids).loss.isfinite()
"""


def needed(*names: str) -> dict[str, Distribution]:
    """The installed distributions of some names and all that these require without extras: name → distribution."""
    found: dict[str, Distribution] = {}
    left = list(names)
    while left:
        if (name := left.pop()) not in found:
            found[name] = distribution(name)
            requirements = map(Requirement, found[name].requires or ())
            left += [each.name for each in requirements if each.marker is None or each.marker.evaluate({"extra": ""})]
    return found


@pytest.fixture
def light(tmp_path) -> Path:
    """A folder of links, as `site-packages` with torch, transformers, safetensors, what these need, and mixln."""
    folder = tmp_path / "packages"
    folder.mkdir()
    for found in needed("torch", "transformers", "safetensors").values():
        for top in {file.parts[0] for file in found.files or () if file.parts[0] not in ("..", "__pycache__")}:
            if not (folder / top).exists():
                (folder / top).symlink_to(found.locate_file(top))
    (folder / "mixln").symlink_to(Path(mixln.__file__).parent)
    metadata = distribution("mixln")
    information = folder / f"mixln-{metadata.version}.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: mixln\nVersion: {metadata.version}\n")
    return folder


def run(light: Path, program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Runs a program with the packages of a folder only: -I and -S leave out the environment's own and PYTHONPATH."""
    command = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, sys.argv[1])\n{program}", str(light)]
    return subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True)


@pytest.mark.long
def test_placing_needs_only_torch_transformers_and_safetensors(light, tmp_path):
    done = run(light, PROGRAM, tmp_path / "model")
    assert done.returncode == 0, done.stderr


def test_the_command_line_names_the_extra_that_it_lacks(light):
    done = run(light, "from mixln.__main__ import main; sys.exit(main())")
    assert done.returncode == 2
    assert re.fullmatch(r'mixln: the command line needs \w+; run pip install "mixln\[experiments\]"\n', done.stderr)
