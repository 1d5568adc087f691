"""Compares a family's placed model with its stock model, on a small config with random weights: logits and gradients.

Once per family and version of transformers and mixln; the result is kept in mixln's cache folder.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedModel

from mixln.errors import MixlnError, first_line
from mixln.files import write_atomic
from mixln.hosts.configs import stock_entries
from mixln.hosts.family import Host, copy_weights
from mixln.hosts.probe import probe
from mixln.hosts.shrunken import shrunken
from mixln.hosts.syntax import Unreadable
from mixln.records import from_json, read_json, to_json

CACHE = Path("~/.cache/mixln/families")
TOLERANCE = 1e-5
"""Largest difference that counts as rounding, as a fraction of the largest value in float32."""
LENGTH = 12
"""Tokens of the input."""


@dataclass(frozen=True, kw_only=True)
class Verification:
    """The result of a comparison.

    :param difference: the largest difference of logits and gradients, as a fraction of the largest logit or of the tensor's largest
        gradient; 0 if all are equal to the bit.
    :param failure: what differs or fails; empty if nothing does.
    """

    difference: float = 0.0
    failure: str = ""


def check_verified(host: Host) -> None:
    """:raises Unreadable: if the placed model of a family does not compute what its stock model computes."""
    if failure := verified(host).failure:
        raise Unreadable(f"{host.model_type} cannot be placed: {failure}")


KNOWN: dict[str, Verification] = {}
"""Model type → result, of the families that were verified in this process."""


def verified(host: Host) -> Verification:
    """The result for a family, from the cache if it is there."""
    if host.model_type not in KNOWN:
        file = CACHE.expanduser() / f"{host.model_type}-{_fingerprint()}.json"
        try:
            result = from_json(Verification, read_json(file), "verification")
        except (OSError, ValueError, MixlnError):
            try:
                result = _verify(host)
            except Exception as error:  # may lie in this process, for example in its memory, so it is not stored
                result = _failed(error)
            else:
                # A cache folder that cannot be written costs a second next time.
                with suppress(OSError, MixlnError):
                    write_atomic(file, json.dumps(to_json(result)))
        KNOWN[host.model_type] = result
    return KNOWN[host.model_type]


@cache
def _fingerprint() -> str:
    """Identifies the code that the result depends on: transformers, torch and mixln."""
    ours = hashlib.sha256()
    for path in _sources():
        ours.update(path.read_bytes())
    return f"{transformers.__version__}-{version('torch')}-{ours.hexdigest()[:12]}"


def _sources() -> list[Path]:
    """The files of mixln that placed models are made by."""
    package = Path(__file__).parents[1]
    return sorted(path for room in ("hosts", "nn", "placement") for path in (package / room).rglob("*.py"))


def verify(host: Host) -> Verification:
    """Compares the placed with the stock model now."""
    try:
        return _verify(host)
    except Exception as error:  # any error of any family's code
        return _failed(error)


def _failed(error: Exception) -> Verification:
    if isinstance(error, MixlnError):
        return Verification(failure=first_line(error))
    return Verification(
        failure=f"the check against the stock model stopped with {type(error).__name__}: {first_line(error)}"
    )


def _verify(host: Host) -> Verification:
    stock_class, auto = next(iter(host.heads.values()), (host.base, AutoModel))
    with _defaults():
        torch.default_generator.manual_seed(0)
        config: Any = shrunken(host.config)
        stock = stock_class(config).float().eval()
        _randomise(stock)
        entries = stock_entries(config) | {"placement": host.placement(config, "stock").to_json()}
        placed_config = AutoConfig.for_model(f"placed_{host.model_type}", **entries)
        placed = auto.from_config(placed_config).float().eval()
        copy_weights(stock, placed, host.canonical)
        return _compared(host, stock, placed)


@contextmanager
def _defaults() -> Iterator[None]:
    """PyTorch's defaults on the CPU with a random state of its own: a family is first used wherever the caller happens to be, for
    example under `torch.device("meta")`, `torch.no_grad()` or another default dtype."""
    dtype = torch.get_default_dtype()
    modes = (torch.inference_mode(False), torch.enable_grad(), torch.autocast("cpu", enabled=False))
    with ExitStack() as stack:
        for mode in (torch.random.fork_rng(devices=[]), torch.device("cpu"), *modes):
            stack.enter_context(mode)
        stack.callback(torch.set_default_dtype, dtype)
        torch.set_default_dtype(torch.float32)
        yield


@torch.no_grad()
def _randomise(model: nn.Module) -> None:
    """Random weights with which every branch and every norm has an effect."""
    for parameter in model.parameters():
        if parameter.ndim >= 2:
            parameter.normal_(0.0, 0.1)
        else:
            parameter.add_(0.2 * torch.randn_like(parameter))


def _compared(host: Host, stock: PreTrainedModel, placed: PreTrainedModel) -> Verification:
    wanted, grads = _run(stock)
    found, placed_grads = _run(placed)
    if not wanted.isfinite().all() or not wanted.std() > 0:
        return Verification(failure="the outputs of the small stock model are not finite, or all equal")
    difference = relative(wanted, found)
    if not difference <= TOLERANCE:
        return Verification(
            failure=f"the logits of the placed model differ by {difference:.1g} of the largest from the stock model's"
        )
    expected = {host.canonical(name): grad for name, grad in grads.items()}
    for name, grad in placed_grads.items():
        theirs = expected[host.canonical(name)]
        if (grad is None) != (theirs is None):
            return Verification(failure=f"only one of placed and stock model has a gradient of {name}")
        if grad is None or theirs is None:
            continue
        change = relative(theirs, grad)
        if not change <= 10 * TOLERANCE:
            return Verification(
                failure=f"the gradient of {name} differs by {change:.1g} of the largest from the stock model's"
            )
        difference = max(difference, change)
    return Verification(difference=difference)


def _run(model: PreTrainedModel) -> tuple[Tensor, dict[str, Tensor | None]]:
    """Logits of a small input, or the last hidden state of a model without a head, and the gradients of their mean square."""
    outputs = model(**probe(model, length=LENGTH))
    logits = outputs.logits if "logits" in outputs else outputs.last_hidden_state
    logits.square().mean().backward()
    return logits.detach(), {name: parameter.grad for name, parameter in model.named_parameters()}


def relative(wanted: Tensor, found: Tensor) -> float:
    """The largest difference as a fraction of the largest value; 0 for two tensors of zeros."""
    if torch.equal(wanted, found):
        return 0.0
    return float((wanted - found).abs().max() / wanted.abs().max().clamp_min(torch.finfo(torch.float32).tiny))
