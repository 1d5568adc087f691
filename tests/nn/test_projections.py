"""Norms beside projections: their formula, and that the module keeps everything else that it had."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

from mixln.errors import PlacementError
from mixln.nn.norms import GroupRMSNorm
from mixln.nn.projections import Site, add_norms

EPS = 1e-6
HEADS = 3


class Attention(nn.Module):
    """12 features, 3 heads of 4; gives what q_proj and o_proj make, so that a norm on either shows."""

    def __init__(self) -> None:
        super().__init__()
        self.q_proj = nn.Linear(12, 12, bias=False)
        self.o_proj = nn.Linear(12, 12, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.q_proj(x), self.o_proj(x)


class Fused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.c_attn = nn.Linear(12, 36, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_attn(x)


class Indirect(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q_proj = nn.Linear(12, 12)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.q_proj.weight)


class Twice(nn.Linear):
    """Another module under the same name, as an adapter library puts there."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x) + 1


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def rms(x: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + EPS).sqrt()


def norm(size: int, seed: int = 1) -> nn.Module:
    made = nn.RMSNorm(size, eps=EPS)
    with torch.no_grad():
        made.weight.uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(seed))
    return made


def normed(width: str, *, before: bool = False) -> Attention:
    module, size = Attention(), 4 if width == "head" else 12
    name = "o_proj" if before else "q_proj"
    site = Site(projection=name, norm="own_norm", before=before, size=size if width == "head" else None)
    add_norms(module, [(site, norm(size))])
    return module


def by_head(x: Tensor, gain: Tensor) -> Tensor:
    return torch.cat([gain * rms(head) for head in x.split(len(gain), -1)], -1)


def test_norm_per_head_has_one_gain_for_all_heads():
    module, x = normed("head"), random(2, 5, 12)
    assert module.own_norm.weight.shape == (4,)
    torch.testing.assert_close(module(x)[0], by_head(x @ module.q_proj.weight.T, module.own_norm.weight))


def test_norm_of_full_width_sees_all_heads():
    module, x = normed("full"), random(2, 5, 12)
    torch.testing.assert_close(module(x)[0], module.own_norm.weight * rms(x @ module.q_proj.weight.T))


@pytest.mark.parametrize("width", ["head", "full"])
def test_norm_before_a_projection(width):
    module, x = normed(width, before=True), random(2, 5, 12)
    torch.testing.assert_close(module(x)[1], by_head(x, module.own_norm.weight) @ module.o_proj.weight.T)


def test_norm_in_groups_works_within_a_head():
    module, x = Attention(), random(2, 5, 12)
    add_norms(module, [(Site(projection="q_proj", norm="own_norm", size=4), GroupRMSNorm(4, 2, EPS))])
    with torch.no_grad():
        module.own_norm.weight.copy_(torch.tensor([0.5, 1.0, 1.5, 2.0]))
    pairs = torch.cat([rms(pair) for pair in (x @ module.q_proj.weight.T).split(2, -1)], -1)
    torch.testing.assert_close(module(x)[0], module.own_norm.weight.repeat(HEADS) * pairs)


@pytest.mark.parametrize("parts", [(0,), (1, 2), (0, 1, 2)])
def test_fused_projection_is_normalized_part_by_part(parts):
    module, x = Fused(), random(2, 5, 12)
    sizes = {part: 4 if part else None for part in parts}
    add_norms(
        module,
        [
            (Site(projection="c_attn", norm=f"norm_{part}", part=part, size=size), norm(size or 12, seed=part))
            for part, size in sizes.items()
        ],
    )
    expected = [
        by_head(value, module.get_submodule(f"norm_{part}").weight) if part in parts else value
        for part, value in enumerate((x @ module.c_attn.weight.T).split(12, -1))
    ]
    torch.testing.assert_close(module(x), torch.cat(expected, -1))


def test_gradients_reach_projection_and_norm():
    module, x = normed("head"), random(2, 5, 12).requires_grad_()
    weight = module.q_proj.weight.detach().clone().requires_grad_()
    gain = module.own_norm.weight.detach().clone().requires_grad_()
    same, outer = x.detach().clone().requires_grad_(), random(2, 5, 12, seed=3)
    (module(x)[0] * outer).sum().backward()
    (by_head(same @ weight.T, gain) * outer).sum().backward()
    for actual, expected in ((x, same), (module.q_proj.weight, weight), (module.own_norm.weight, gain)):
        torch.testing.assert_close(actual.grad, expected.grad)


def test_projection_keeps_its_name_and_class():
    module = normed("head")
    assert isinstance(module, Attention)
    assert type(module.q_proj) is nn.Linear
    assert {name for name, _ in module.named_parameters()} == {"q_proj.weight", "o_proj.weight", "own_norm.weight"}


@pytest.mark.parametrize("swap", [setattr, lambda module, name, new: module._modules.update({name: new})])
def test_whatever_stands_at_the_name_is_called_whole_before_the_norm(swap):
    module, x = normed("head"), random(2, 5, 12)
    other = Twice(12, 12, bias=False)
    swap(module, "q_proj", other)
    torch.testing.assert_close(module(x)[0], by_head(2 * x @ other.weight.T + 1, module.own_norm.weight))


@pytest.mark.parametrize("again", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_copies_are_independent(again):
    module, x = normed("full"), random(2, 5, 12)
    before = module(x)[0]
    other = again(module)
    assert type(other) is type(module)
    torch.testing.assert_close(other(x)[0], before, rtol=0, atol=0)
    with torch.no_grad():
        other.own_norm.weight.zero_()
    torch.testing.assert_close(module(x)[0], before, rtol=0, atol=0)


def test_traceback_shows_the_lines_of_the_familys_file():
    module = normed("head")
    code, stock = type(module).forward.__code__, Attention.forward.__code__
    assert (code.co_filename, code.co_firstlineno) == (stock.co_filename, stock.co_firstlineno)
    assert module.forward.__globals__ is globals()


def test_a_projection_that_the_code_does_not_call_is_refused():
    with pytest.raises(PlacementError, match=r"on q_proj of Indirect: its code does not call self\.q_proj"):
        add_norms(Indirect(), [(Site(projection="q_proj", norm="own_norm"), norm(12))])


class Reassigning(nn.Module):
    """Changes the variable of its argument, and projects in `forward`."""

    def __init__(self) -> None:
        super().__init__()
        self.q_proj, self.o_proj = nn.Linear(12, 12, bias=False), nn.Linear(12, 12, bias=False)

    def forward(self, x: Tensor, factor: float = 1.0) -> Tensor:
        x = factor * self.q_proj(x)
        return self.o_proj(x)


class Delegating(Reassigning):
    def forward(self, x: Tensor, factor: float = 1.0) -> Tensor:
        return self.output(factor * self.q_proj(x))

    def output(self, x: Tensor) -> Tensor:
        return self.o_proj(x)


@pytest.mark.parametrize("size", [None, 4])
def test_gate_reads_the_modules_input_and_multiplies_the_projections(size):
    module, x = Reassigning(), random(2, 5, 12)
    gate = nn.Linear(12, 12 if size is None else HEADS, bias=False)
    add_norms(module, [(Site(projection="o_proj", norm="gate", before=True, size=size, gates=True), gate)])
    opened = torch.sigmoid(x @ gate.weight.T).repeat_interleave(size or 1, dim=-1)
    expected = (opened * (3.0 * x @ module.q_proj.weight.T)) @ module.o_proj.weight.T
    torch.testing.assert_close(module(x, factor=3.0), expected)
    for again in (copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))):
        torch.testing.assert_close(again(module)(x, factor=3.0), expected)


def test_gate_comes_after_the_norm_there():
    module, x = Reassigning(), random(2, 5, 12)
    gate, before = nn.Linear(12, 12, bias=False), norm(12)
    sites = [Site(projection="o_proj", norm=name, before=True, gates=name == "gate") for name in ("own_norm", "gate")]
    add_norms(module, list(zip(sites, (before, gate), strict=True)))
    normed = before.weight * rms(x @ module.q_proj.weight.T)
    torch.testing.assert_close(module(x), (torch.sigmoid(x @ gate.weight.T) * normed) @ module.o_proj.weight.T)


def test_a_gate_on_a_projection_outside_forward_is_refused():
    with pytest.raises(
        PlacementError, match=r"no gate can be placed on o_proj of Delegating: its forward does not call self\.o_proj"
    ):
        add_norms(Delegating(), [(Site(projection="o_proj", norm="gate", before=True, gates=True), nn.Linear(12, 12))])
