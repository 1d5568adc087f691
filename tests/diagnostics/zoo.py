"""Models for the tests of the diagnostics: toys whose layers are given, and tiny ones of real families."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from tests import tiny


class ToyConfig(PreTrainedConfig):
    model_type = "toy"


class Toy(PreTrainedModel):
    """x ← layer(x), for layers that the test gives; `inputs_embeds` (B, T, D) is the stream that enters the first."""

    config_class = ToyConfig
    main_input_name = "inputs_embeds"

    def __init__(self, config: Any, layers: Sequence[nn.Module]) -> None:
        super().__init__(config)
        self.blocks = nn.ModuleList(layers)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, inputs_embeds: Tensor, attention_mask: Tensor | None = None) -> tuple[Tensor]:
        for block in self.blocks:
            inputs_embeds = block(inputs_embeds)
        return (inputs_embeds * self.scale,)


def toy(*layers: nn.Module) -> Toy:
    return Toy(ToyConfig(num_hidden_layers=len(layers), hidden_size=8), layers).eval()


class Rotation(nn.Module):
    """Turns every token by θ in the plane of the first two features, and scales it."""

    def __init__(self, angle: float, scale: float = 1.0) -> None:
        super().__init__()
        matrix = torch.eye(8, dtype=torch.float64)
        turn = torch.tensor(angle, dtype=torch.float64)
        matrix[0, 0] = matrix[1, 1] = turn.cos()
        matrix[0, 1], matrix[1, 0] = -turn.sin(), turn.sin()
        self.matrix = (scale * matrix).float()

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.matrix.T


class Function(nn.Module):
    """A layer from a function."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": None,
}
GPT2 = {
    "n_embd": 32,
    "n_layer": 3,
    "n_head": 4,
    "n_positions": 64,
    "vocab_size": 64,
    "initializer_range": 0.2,
    "eos_token_id": None,
    "bos_token_id": None,
}
ENCODER = {name: value for name, value in SIZES.items() if name != "num_key_value_heads"}
DISTIL = {
    "vocab_size": 64,
    "dim": 32,
    "hidden_dim": 48,
    "n_layers": 3,
    "n_heads": 4,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
VIT = {
    "image_size": 16,
    "patch_size": 4,
    "num_channels": 3,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_labels": 5,
    "initializer_range": 0.2,
}

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaForCausalLM", SIZES),
    "mistral": ("MistralForCausalLM", SIZES),
    "mixtral": ("MixtralForCausalLM", {**SIZES, "num_local_experts": 4}),
    "qwen2": ("Qwen2ForCausalLM", SIZES),
    "qwen2_moe": ("Qwen2MoeForCausalLM", {**SIZES, **EXPERTS, "shared_expert_intermediate_size": 24}),
    "qwen3": ("Qwen3ForCausalLM", {**SIZES, "head_dim": 8}),
    "qwen3_moe": ("Qwen3MoeForCausalLM", {**SIZES, **EXPERTS, "head_dim": 8}),
    "olmo": ("OlmoForCausalLM", SIZES),
    "olmoe": ("OlmoeForCausalLM", {**SIZES, "num_experts": 4, "num_experts_per_tok": 2}),
    "phi3": ("Phi3ForCausalLM", SIZES),
    "gemma": ("GemmaForCausalLM", {**SIZES, "head_dim": 8}),
    "smollm3": ("SmolLM3ForCausalLM", SIZES),
    "starcoder2": ("Starcoder2ForCausalLM", SIZES),
    "olmo2": ("Olmo2ForCausalLM", SIZES),
    "olmo3": ("Olmo3ForCausalLM", SIZES),
    "gemma2": ("Gemma2ForCausalLM", {**SIZES, "head_dim": 8}),
    "gemma3_text": (
        "Gemma3ForCausalLM",
        {
            **SIZES,
            "head_dim": 8,
            "num_hidden_layers": 4,
            "sliding_window": 4,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
        },
    ),
    "gpt2": ("GPT2LMHeadModel", GPT2),
    "gpt_neox": ("GPTNeoXForCausalLM", {**ENCODER, "rotary_pct": 0.5}),
    "bert": ("BertForMaskedLM", ENCODER),
    "roberta": ("RobertaForMaskedLM", {**ENCODER, "pad_token_id": 1}),
    "xlm-roberta": ("XLMRobertaForMaskedLM", {**ENCODER, "pad_token_id": 1}),
    "electra": ("ElectraForMaskedLM", {**ENCODER, "embedding_size": 16}),
    "distilbert": ("DistilBertForMaskedLM", DISTIL),
    "vit": ("ViTForImageClassification", VIT),
}
"""Family → (class with a head, sizes)."""
PLACED = (
    "pre", "post", "mix(0.5)", "hybrid*", "peri", "deepnorm", "sandwich", "qkvnorm+group(4)+mix(0.5)", "admin", "b2t", "keel",
    "gpas+mix(0.5)", "layerscale(0.5)+pre", "hybrid(post-pre)", "vres+mix(0.5)",
)  # fmt: skip

KEEPING = ("mhc", "ihc", "gated-streams", "hc", "hc(2,static)", "siamese", "resi-dual", "x0+pre", "x0+b2t")
"""Placements with several streams, as many after a layer as before it."""
GROWING = ("attnres", "attnres(3)", "attnres(1,normed)", "dlcl", "denseformer")
"""Placements whose later layers read the outputs of all earlier ones."""


def model(family: str, *, seed: int = 0) -> Any:
    """A tiny model of a family, or a placed one, with randomised gains."""
    if family in (*PLACED, *KEEPING, *GROWING):
        return tiny.placed(family, seed=seed)
    name, sizes = MODELS[family]
    torch.manual_seed(seed)
    kind = getattr(transformers, name)
    made = kind(kind.config_class(**sizes)).eval()
    tiny.randomise_gains(made)
    return made


def batches(family: str, count: int = 2) -> list[dict[str, Tensor]]:
    """Batches of 3 sequences of 9 tokens with padding of different length on the right, and labels; or of 3 images."""
    generator = torch.Generator().manual_seed(5)
    found = []
    for _ in range(count):
        if family == "vit":
            pixels, classes = (
                torch.randn(3, 3, 16, 16, generator=generator),
                torch.randint(5, (3,), generator=generator),
            )
            found.append({"pixel_values": pixels, "labels": classes})
            continue
        ids = torch.randint(3, 64, (3, 9), generator=generator)
        mask = torch.ones_like(ids)
        mask[1, 7:], mask[2, 4:] = 0, 0
        found.append({"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)})
    return found


TASK = """
task: small_choice
dataset_path: json
dataset_kwargs: {data_files: {test: ROWS}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{gold}}"
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""


def write_task(folder: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Writes the lm-eval task `small_choice` as small.yaml, with its questions in rows.jsonl."""
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "small.yaml").write_text(TASK.replace("ROWS", str(folder / "rows.jsonl")))
