"""What a training step is made of: where its time goes, and ways of computing a part that did not make it into this project.

    python benchmarks/step_parts.py                     # the default comparison's model: a minute on one core
    python benchmarks/step_parts.py --model 71m --length 256

First the profile of a step of `pre`, as its layers are written and compiled. Then pairs, interleaved, with the ratio of their speeds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import Counter
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch.profiler import profile
from transformers.models.llama.modeling_llama import LlamaRMSNorm

import mixln
from mixln.memory import keep_freed_memory
from mixln.nn.loss import without_logits
from mixln.presets import PRESETS, Preset, model_config
from mixln.training.compiling import Compile, compile_layers

BATCH = 8
KINDS = {
    "matrix products": ("aten::mm", "aten::addmm", "aten::bmm"),
    "attention": ("aten::_scaled_dot_product",),
    "compiled code": ("## Call CompiledFxGraph",),
    "softmax of the loss": ("aten::_log_softmax", "aten::exp_"),
    "optimizer": ("aten::_fused_adamw_",),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny", choices=list(PRESETS))
    parser.add_argument("--length", type=int, default=128)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    for wish in ("off", "on"):
        where_the_time_goes(chosen.model, chosen.length, wish)  # type: ignore[arg-type]
    norms(PRESETS[chosen.model], chosen.length)
    attentions(PRESETS[chosen.model], chosen.length)
    formats()


def where_the_time_goes(name: str, length: int, wish: Compile) -> None:
    config = model_config(name, sequence_length=length)
    model = mixln.from_config(config, placement="pre").train()
    compile_layers(model, wish, device="cpu", steps=1, sharded=False)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    tokens = torch.randint(config.vocab_size, (BATCH, length))

    def step() -> None:
        with without_logits(model):
            model(input_ids=tokens, labels=tokens, use_cache=False).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    for _ in range(3):
        step()
    with profile() as recorded:
        for _ in range(5):
            step()
    spent: Counter[str] = Counter()
    for event in recorded.key_averages():
        kind = next((kind for kind, names in KINDS.items() if event.key.startswith(names)), "all else")
        spent[kind] += event.self_cpu_time_total
    parts = ", ".join(f"{kind} {time / 5e3:.0f} ms" for kind, time in spent.most_common())
    print(f"{name}, compile {wish}: {sum(spent.values()) / 5e3:.0f} ms a step: {parts}")


def norms(shape: Preset, length: int) -> None:
    norm = LlamaRMSNorm(shape.hidden_size)
    x = torch.randn(BATCH, length, shape.hidden_size, requires_grad=True)
    g = torch.randn_like(x)
    race(
        "RMSNorm, forward and backward",
        {
            "the family's": lambda: norm(x).backward(g),
            "F.rms_norm": lambda: F.rms_norm(x, x.shape[-1:], norm.weight, 1e-6).backward(g),
        },
    )


def attentions(shape: Preset, length: int) -> None:
    size = shape.hidden_size // shape.heads
    q, k, v = (torch.randn(BATCH, shape.heads, length, size, requires_grad=True) for _ in range(3))
    g, mask = torch.randn_like(q), torch.full((length, length), float("-inf")).triu(1)

    def products() -> None:
        scores = torch.baddbmm(mask, q.flatten(0, 1), k.flatten(0, 1).transpose(1, 2), alpha=size**-0.5)
        (scores.softmax(-1) @ v.flatten(0, 1)).view_as(q).backward(g)

    race(
        "causal attention, forward and backward",
        {
            "SDPA": lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True).backward(g),
            "plain products": products,
        },
    )


def formats() -> None:
    a = torch.randn(2048, 2048)
    low = a.bfloat16()
    race("product of 2048 x 2048", {"float32": lambda: a @ a, "bfloat16": lambda: low @ low})


def race(what: str, runs: dict[str, Callable[[], object]]) -> None:
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(23):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            if repeat >= 3:
                seconds[name].append(time.perf_counter() - began)
    first = statistics.median(next(iter(seconds.values())))
    words = (
        f"{name} {1e3 * (t := statistics.median(times)):.2f} ms ({first / t:.2f})" for name, times in seconds.items()
    )
    print(f"{what}: {', '.join(words)}")


if __name__ == "__main__":
    main()
