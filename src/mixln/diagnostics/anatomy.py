"""The submodules of a layer that form its residual branches, by model family. Nothing here needs torch.

A layer adds two branches to the residual stream. Families differ in which submodule's output is added and in which submodule
receives the stream that it is added to. transformers has no interface that says so, hence this table.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Branch:
    """One residual branch of a layer, described by names of submodules within the layer.

    :param output: the submodule whose output is added to the stream.
    :param stream: the submodule whose input is the stream that the branch is added to.
    :param weights: the submodules that hold the branch's weights, norms included.
    """

    output: str
    stream: str
    weights: tuple[str, ...]


Branches = tuple[Branch, Branch]
"""Attention, feed-forward."""


def _pre(attention: str, attention_norm: str, feed_forward: str, feed_forward_norm: str) -> Branches:
    """x + f(norm(x)), twice."""
    return (
        Branch(output=attention, stream=attention_norm, weights=(attention_norm, attention)),
        Branch(output=feed_forward, stream=feed_forward_norm, weights=(feed_forward_norm, feed_forward)),
    )


LLAMA = _pre("self_attn", "input_layernorm", "mlp", "post_attention_layernorm")
RES_POST = (  # x + norm(f(x)), twice
    Branch(
        output="post_attention_layernorm", stream="self_attn.q_proj", weights=("self_attn", "post_attention_layernorm")
    ),
    Branch(output="post_feedforward_layernorm", stream="mlp", weights=("mlp", "post_feedforward_layernorm")),
)
SANDWICH = (  # x + norm(f(norm(x))), twice
    Branch(
        output="post_attention_layernorm",
        stream="input_layernorm",
        weights=("input_layernorm", "self_attn", "post_attention_layernorm"),
    ),
    Branch(
        output="post_feedforward_layernorm",
        stream="pre_feedforward_layernorm",
        weights=("pre_feedforward_layernorm", "mlp", "post_feedforward_layernorm"),
    ),
)
PARALLEL = (  # x + attention(norm(x)) + feed_forward(norm'(x)): both are added to the layer's input
    Branch(output="attention", stream="input_layernorm", weights=("input_layernorm", "attention")),
    Branch(output="mlp", stream="post_attention_layernorm", weights=("post_attention_layernorm", "mlp")),
)
BERT = (  # norm(x + f(x)), twice
    Branch(output="attention.output.dense", stream="attention.self.query", weights=("attention",)),
    Branch(output="output.dense", stream="intermediate.dense", weights=("intermediate", "output")),
)
DISTILBERT = (
    Branch(output="attention", stream="attention.q_lin", weights=("attention", "sa_layer_norm")),
    Branch(output="ffn", stream="ffn", weights=("ffn", "output_layer_norm")),
)

FAMILIES: dict[str, Branches] = {
    **dict.fromkeys(
        (
            "llama", "mistral", "mixtral", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "olmo", "olmoe", "phi3", "gemma",
            "smollm3", "starcoder2",
        ),
        LLAMA,
    ),
    **dict.fromkeys(("olmo2", "olmo3"), RES_POST),
    **dict.fromkeys(("gemma2", "gemma3_text"), SANDWICH),
    "gpt2": _pre("attn", "ln_1", "mlp", "ln_2"),
    "gpt_neox": PARALLEL,
    "vit": _pre("attention", "layernorm_before", "mlp", "layernorm_after"),
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "electra"), BERT),
    "distilbert": DISTILBERT,
}  # fmt: skip
"""`config.model_type` → branches. The branches of placed models follow from their placement records."""
