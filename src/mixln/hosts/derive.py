"""Derives the record of a host family from transformers' own code. What cannot be read is refused with the line of that code."""

from __future__ import annotations

import ast
import inspect
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
import transformers
from torch import nn
from transformers import CONFIG_MAPPING, MODEL_MAPPING, PreTrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights
from transformers.pytorch_utils import Conv1D

from mixln.errors import first_line
from mixln.hosts.attention import own_norms_of, projections_of
from mixln.hosts.family import Host, StackConfig
from mixln.hosts.own_streams import OWN_STREAMS, SINGLE
from mixln.hosts.reading import Reading, read_layer
from mixln.hosts.roles import roles
from mixln.hosts.shrunken import shrunken
from mixln.hosts.static import Dynamic, evaluate
from mixln.hosts.syntax import Unreadable, is_norm, parsed
from mixln.placement import Projections

HEADS = {
    "seq2seq-lm": ("SEQ_TO_SEQ_CAUSAL_LM", "Seq2SeqLM"),
    "speech-seq2seq": ("SPEECH_SEQ_2_SEQ", "SpeechSeq2Seq"),
    "causal-lm": ("CAUSAL_LM", "CausalLM"),
    "masked-lm": ("MASKED_LM", "MaskedLM"),
    "image-classification": ("IMAGE_CLASSIFICATION", "ImageClassification"),
    "sequence-classification": ("SEQUENCE_CLASSIFICATION", "SequenceClassification"),
    "token-classification": ("TOKEN_CLASSIFICATION", "TokenClassification"),
}
"""Head → transformers' names of it, in `MODEL_FOR_…_MAPPING` and `AutoModelFor…`."""
OF_ENCODER_DECODERS = ("seq2seq-lm", "speech-seq2seq")
"""Heads that transformers also names for models with one stack, which have them under another name."""
OF_A_STACK = {
    "num_hidden_layers": ("{}_layers", "num_{}_layers", "{}_num_hidden_layers"),
    "num_attention_heads": ("{}_attention_heads", "num_{}_attention_heads", "{}_num_attention_heads"),
    "num_key_value_heads": ("{}_num_key_value_heads", "{}_attention_heads", "num_{}_attention_heads"),
}
"""Entry of a config → names that it may have for the `encoder` or the `decoder` of an encoder-decoder."""
DOWN_NAMES = ("down_proj", "fc2", "c_proj", "dense_4h_to_h", "proj_2", "w2", "fc_out", "wo")
POOLERS = ("pooler",)


def derive(model_type: str) -> Host:
    """The record of a family.

    :raises Unreadable: if its code is not residual algebra that records can express, with the line.
    """
    cls = CONFIG_MAPPING[model_type]
    base = _base(cls)
    config, model = _example(cls, base)
    if not config.is_encoder_decoder:
        host = _of_stack(model, config, {})
    else:
        encoder, host = (_of_stack(model, config, _entries(config, name), name) for name in ("encoder", "decoder"))
        host = replace(host, encoder=encoder, roles={**encoder.roles, **host.roles})
    return replace(host, heads=_heads(host, config))


def _entries(config: Any, stack: str) -> dict[str, str]:
    """See :attr:`Host.entries`."""
    own = {name: [form.format(stack) for form in forms] for name, forms in OF_A_STACK.items()}
    return {name: known for name, forms in own.items() for known in forms[::-1] if hasattr(config, known)}


def _of_stack(model: PreTrainedModel, whole: Any, entries: Mapping[str, str], name: str = "") -> Host:
    """The record of one stack of layers, without heads.

    :param whole: config of the model; `entries`: see :class:`~mixln.hosts.family.Host`.
    :param name: attribute of the model that holds the stack in an encoder-decoder; empty in other models.
    """
    cls, base = type(whole), type(model)
    config = StackConfig(whole, entries)
    layers = _layer_list(model, config, name)
    stack = list(model.get_submodule(layers).children())
    own = OWN_STREAMS.get(cls.model_type, SINGLE)
    readings = [read_layer(layer, own.layer, cross=name == "decoder") for layer in stack]
    records = Counter(reading.record for reading in readings)
    ((record, _),) = records.most_common(1)
    stock_names = _stock_names(cls.model_type, readings)
    final_norm = _final_norm(model, layers)
    if not final_norm and record.feed_forward.stream_out is None:
        raise Unreadable(f"{base.__name__} has no norm after its layers, which are {record.formula}")
    norm, eps = _norm(model, stack, readings, final_norm, config)
    if record.cross_attention not in (None, record.attention):
        raise Unreadable(
            f"{cls.model_type} has cross-attention with norms in other places than its attention: {record.formula}"
        )
    attention, *cross, feed_forward = (
        [(read.module, layer.get_submodule(read.module)) for layer, read in zip(stack, reads, strict=True)]
        for reads in zip(*(reading.sublayers for reading in readings), strict=True)
    )
    attentions = [module for side in (attention, *cross) for _, module in side]
    projections = projections_of(attentions, config)
    example = next(
        layer.get_submodule(path) for layer, read in zip(stack, readings, strict=True) for path in read.norms.values()
    )
    own_norms = own_norms_of(attentions, projections, example, config)
    on_projections = replace(Projections(), **{slot: norm for slot, (_, norm) in own_norms.items()})
    kinds = tuple(replace(kind, projections=on_projections) for kind in records)
    return Host(
        config=cls,
        base=base,
        heads={},
        pooler=next((name for name in POOLERS if isinstance(getattr(model, name, None), nn.Module)), ""),
        layers=layers,
        final_norm=final_norm,
        attention=attention[0][0],
        feed_forward=feed_forward[0][0],
        projections=projections,
        down=_down([module for _, module in feed_forward]),
        own_norms={slot: name for slot, (name, _) in own_norms.items()},
        roles=roles(model, list(zip(stack, readings, strict=True)), projections),
        norm=norm,
        eps=eps,
        stock=replace(record, projections=on_projections),
        kinds=kinds if len(kinds) > 1 else (),
        stock_names={**stock_names, **own.weights},
        own=own,
        entries=entries,
    )


def example_layers(model_type: str) -> list[nn.Module]:
    """The layers of a small model of a family, without memory.

    :raises Unreadable: if no such model can be built, or its layers cannot be found.
    """
    cls = CONFIG_MAPPING[model_type]
    config, model = _example(cls, _base(cls))
    return list(model.get_submodule(_layer_list(model, config)).children())


def _stock_names(model_type: str, readings: Sequence[Reading]) -> dict[str, str]:
    """Slot of a norm → its path in a stock layer.

    :raises Unreadable: if layers have different norms in one slot.
    """
    names: dict[str, str] = {}
    for reading in readings:
        for slot, path in reading.norms.items():
            if names.setdefault(slot, path) != path:
                raise Unreadable(f"{model_type} has layers with different norms in one place: {names[slot]} and {path}")
    return names


def _base(cls: type[PreTrainedConfig]) -> type[PreTrainedModel]:
    """The class of the family's model without a head."""
    try:
        base: Any = MODEL_MAPPING[cls]
    except (KeyError, ValueError) as error:  # ValueError: the table names a class that does not exist
        raise Unreadable(f"{cls.model_type} has no model without a head in transformers") from error
    return base[0] if isinstance(base, tuple) else base


def _example(cls: type[PreTrainedConfig], base: type[PreTrainedModel]) -> tuple[Any, PreTrainedModel]:
    """A small config of the family, and its model without memory."""
    try:
        config = shrunken(cls)
        with torch.device("meta"), no_init_weights():
            return config, base(config)
    except Exception as error:  # any error of any family's code
        raise Unreadable(f"no small {cls.model_type} can be built: {first_line(error.__cause__ or error)}") from error


def _layer_list(model: PreTrainedModel, config: Any, stack: str = "") -> str:
    """The attribute of a model that holds its layers; with `stack`, those inside this attribute."""
    depth = getattr(config, "num_hidden_layers", None)
    if depth is None:
        parts = ", ".join(sorted(config.sub_configs))
        raise Unreadable(
            f"the config of {type(model).__name__} does not say how many layers it has (num_hidden_layers)"
            + (f"; it is made of several models ({parts}), and each may be a family by itself" if parts else "")
        )
    lists = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList)
        and len(module) == depth
        and _runs(module)
        and name.startswith(f"{stack}." if stack else "")
    ]
    # T5's layers hold their sublayers in lists.
    lists = [name for name in lists if not any(name.startswith(f"{other}.") for other in lists)]
    # A multimodal model has its text layers itself, and those of other modalities inside other modules.
    lists = [name for name in lists if "." not in name] or lists
    if len(lists) != 1:
        where = f" in its {stack}" if stack else ""
        raise Unreadable(f"{type(model).__name__} has {len(lists)} lists of {depth} layers{where}, but must have one")
    return lists[0]


def _runs(layers: nn.ModuleList) -> bool:
    return all(type(layer).forward is not nn.Module.forward for layer in layers)


def _final_norm(model: PreTrainedModel, layers: str) -> str:
    """Path of the norm after the layers of a model; empty if it has none.

    It is called after the loop over the layers, or by an outer module after it has called the one with the loop.
    """
    path, _, attribute = layers.rpartition(".")
    owner = model.get_submodule(path)
    (tree, first) = parsed(type(owner).forward)
    loops = [
        node for node in ast.walk(tree) if isinstance(node, ast.For) and f"self.{attribute}" in ast.unparse(node.iter)
    ]
    if len(loops) != 1:
        raise Unreadable(
            f"{type(owner).__name__} runs its layers in {len(loops)} loops, but must have one: line {first}"
        )
    norms = _norms_after(owner, tree, loops[0].end_lineno or 0)
    while path and not norms:
        path, _, attribute = path.rpartition(".")
        owner = model.get_submodule(path)
        (tree, first) = parsed(type(owner).forward)
        lines = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Call) and _calls(node, attribute)]
        norms = _norms_after(owner, tree, max(lines, default=0))
    if len(norms) > 1:
        raise Unreadable(
            f"{type(owner).__name__} has {len(norms)} norms after its layers, but must have one: line {first}"
        )
    return ".".join(part for part in (path, *norms) if part) if norms else ""


def _norms_after(owner: nn.Module, tree: ast.FunctionDef, line: int) -> list[str]:
    """Norms that the code of a module calls after a line."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and node.lineno > line]
    norms = [name for name, child in owner.named_children() if is_norm(child)]
    return [name for name in norms if any(_calls(call, name) for call in calls)]


def _calls(node: ast.Call, name: str) -> bool:
    return ast.unparse(node.func) == f"self.{name}"


def _norm(
    model: PreTrainedModel, layers: Sequence[nn.Module], readings: Sequence[Reading], final_norm: str, config: Any
) -> tuple[Callable[[Any, int], nn.Module], Callable[[Any], float]]:
    """The family's norm as a function of config and size, and its ε as a function of the config.

    Read from the code that makes the norms of a layer; all of them must be alike.
    """
    # One layer of each kind.
    kinds = {reading.record: (layer, reading) for layer, reading in zip(layers, readings, strict=True)}.values()
    places: list[tuple[nn.Module, str]] = [(layer, path) for layer, reading in kinds for path in reading.norms.values()]
    if final_norm:
        places.append((model, final_norm))
    calls: list[_Constructor] = []
    for outer, whole in places:
        path, _, name = whole.rpartition(".")
        calls.append(_Constructor(type(outer.get_submodule(path)), name, outer.get_submodule(whole)))
    for call in calls:
        made = call.make(config, config.hidden_size)
        if repr(made) != repr(call.example) or _shapes(made) != _shapes(call.example):
            raise Unreadable(
                f"{call.owner.__name__} makes its norm {call.name} in a way that cannot be repeated: {call.text}"
            )
        if repr(made) != repr(calls[0].example) or type(made) is not type(calls[0].example):
            raise Unreadable(f"the norms {calls[0].name} and {call.name} of {config.model_type} differ")
    first = calls[0]
    return first.make, lambda config: epsilon(first.make(config, config.hidden_size))


def _shapes(module: nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in module.state_dict().items()}


def epsilon(norm: nn.Module) -> float:
    """ε of a norm: the number that its class keeps under one of the usual names; PyTorch's default, 1e-5, if it keeps none."""
    for name in ("variance_epsilon", "eps", "epsilon", "norm_eps"):
        if isinstance(value := getattr(norm, name, None), float):
            return value
    return 1e-5  # a class without one, as in OLMo, has it in its code


class _Constructor:
    """The call in a module's `__init__` that makes a norm, repeated for another size.

    :param owner: class of the module; `name`: attribute that holds the norm; `example`: such a norm.
    """

    def __init__(self, owner: type[nn.Module], name: str, example: nn.Module) -> None:
        self.owner, self.name, self.example = owner, name, example
        self.assigned: dict[str, ast.expr] = {}
        made: list[ast.expr] = []
        for cls in owner.__mro__:
            if "__init__" in vars(cls) and issubclass(cls, nn.Module) and cls not in (nn.Module, PreTrainedModel):
                for attribute, value in _assignments(cls):
                    self.assigned.setdefault(attribute, value)
                    if attribute == name:
                        made += [value.body, value.orelse] if isinstance(value, ast.IfExp) else [value]
        value = next((value for value in map(_before_cast, made) if self._is_call(value)), None)
        if not isinstance(value, ast.Call):
            raise Unreadable(f"{owner.__name__} does not make its norm {name} in one call")
        self.call = value
        self.text = ast.unparse(value)

    def _is_call(self, node: ast.expr) -> bool:
        return isinstance(node, ast.Call) and ast.unparse(node.func).endswith(type(self.example).__name__)

    def make(self, config: Any, size: int) -> nn.Module:
        """The norm over `size` features."""
        signature = inspect.signature(type(self.example).__init__)
        sized = list(signature.parameters)[1]
        arguments = [self._value(node, config) for node in self.call.args]
        keywords = {keyword.arg: self._value(keyword.value, config) for keyword in self.call.keywords if keyword.arg}
        if arguments and arguments[0] == config.hidden_size:
            arguments[0] = size
        elif keywords.get(sized) == config.hidden_size:
            keywords[sized] = size
        made = type(self.example)(*arguments, **keywords)
        if any(len(parameter) != size for parameter in made.parameters()):
            raise Unreadable(f"{self.owner.__name__} makes its norm {self.name} of one size only: {self.text}")
        return made

    def _value(self, node: ast.expr, config: Any) -> Any:
        try:
            return evaluate(_Expand(self.assigned).visit(deepcopy(node)), {"config": config})
        except Dynamic as error:
            raise Unreadable(f"{self.owner.__name__} makes its norm {self.name} from {ast.unparse(node)}") from error


def _before_cast(node: ast.expr) -> ast.expr:
    """`f(x)` of `f(x).to(dtype)`."""
    match node:
        case ast.Call(func=ast.Attribute(value=ast.expr() as made, attr="to")):
            return made
    return node


class _Expand(ast.NodeTransformer):
    """Replaces `self.x` and local variables by the expressions that `__init__` assigns to them."""

    def __init__(self, assigned: Mapping[str, ast.expr]) -> None:
        self.assigned = assigned

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        if isinstance(node.value, ast.Name) and node.value.id == "self":
            if node.attr == "config":
                return ast.Name("config", ast.Load())
            if node.attr in self.assigned:
                return self.visit(deepcopy(self.assigned[node.attr]))
        return self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> ast.AST:
        if node.id in self.assigned and node.id != "config":
            return self.visit(deepcopy(self.assigned[node.id]))
        return node


def _assignments(cls: type) -> Iterator[tuple[str, ast.expr]]:
    """(name, expression) of every `self.name = expression` and `name = expression` in a class's `__init__`."""
    tree, _ = parsed(cls.__init__)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Assign):
            continue
        target = node.targets[0]
        if isinstance(target, ast.Attribute):
            yield target.attr, node.value
        elif isinstance(target, ast.Name):
            yield target.id, node.value


def _down(feeds: list[nn.Module]) -> str:
    """The attribute of the feed-forward that holds its output projection, in any of the layers; empty if none has one."""
    return next(
        (n for n in DOWN_NAMES if any(isinstance(getattr(feed, n, None), nn.Linear | Conv1D) for feed in feeds)), ""
    )


def _heads(host: Host, config: Any) -> dict[str, tuple[type[PreTrainedModel], Any]]:
    """The heads that transformers has for a family, on top of its base model or of the stacks of one, as in T5."""
    found: dict[str, tuple[type[PreTrainedModel], Any]] = {}
    for head, (table, auto) in HEADS.items():
        if head in OF_ENCODER_DECODERS and not config.is_encoder_decoder:
            continue
        try:
            stock: Any = getattr(transformers, f"MODEL_FOR_{table}_MAPPING")[host.config]
        except KeyError:
            continue
        stock = stock[0] if isinstance(stock, tuple) else stock
        try:
            with torch.device("meta"), no_init_weights():
                model = stock(config)
        except Exception:  # any error of any family's code
            continue
        if any(type(child) is host.base for _, child in model.named_children()) or host.has_stacks(model):
            found[head] = stock, getattr(transformers, f"AutoModelFor{auto}")
    if getattr(config, "is_decoder", None) is False and {"causal-lm", "masked-lm"} <= found.keys():
        # An encoder, which its class for causal language modelling turns into a decoder only if the config says so.
        found["causal-lm"] = found.pop("causal-lm")
    return found
