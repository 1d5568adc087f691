"""Which families of the installed transformers can be placed, and why the others cannot."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import transformers
from transformers import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

from mixln.errors import MixlnError
from mixln.hosts.derive import OF_ENCODER_DECODERS
from mixln.hosts.families import host_of
from mixln.hosts.family import Host
from mixln.hosts.verify import verified

KINDS = {
    "causal-lm": "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
    "masked-lm": "MODEL_FOR_MASKED_LM_MAPPING_NAMES",
    "image-classification": "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES",
    "image-features": "MODEL_FOR_IMAGE_MAPPING_NAMES",
    "text-features": "MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES",
    "seq2seq-lm": "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",
    "speech-seq2seq": "MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES",
}
"""Kind by which a family is counted → transformers' table of such families. Features are what models without a head give."""
PARTS = {"image-features": r".*_vision_model", "text-features": r".*(?<!_to)_text(_model)?"}
"""Kind → model types that are one part of a multimodal model, as a regular expression; not all are in the table of their kind."""


@dataclass(frozen=True, kw_only=True)
class Surveyed:
    """One family.

    :param kinds: those of :data:`KINDS` for which transformers has a class of the family.
    :param kind: the one of them that was verified: that of the family's first head. Empty if the family cannot be placed.
    :param host: its record; `None` if it cannot be placed.
    :param difference: largest relative difference between placed and stock model; 0 if they are equal to the bit.
    :param reason: why it cannot be placed, with the line of its code; empty if it can.
    """

    model_type: str
    kinds: tuple[str, ...]
    kind: str = ""
    host: Host | None = None
    difference: float = 0.0
    reason: str = ""


def families() -> dict[str, tuple[str, ...]]:
    """Model type → kinds, for every family of the installed transformers that is of one of these kinds."""
    found: dict[str, tuple[str, ...]] = {}
    for kind, table in KINDS.items():
        names = getattr(transformers.models.auto.modeling_auto, table)
        parts = [name for name in MODEL_MAPPING_NAMES if re.fullmatch(PARTS.get(kind, ""), name)]
        for model_type in dict.fromkeys((*names, *parts)):
            # A second name of a family, as gpt-sw3 is of gpt2, is not counted.
            named = model_type in CONFIG_MAPPING and CONFIG_MAPPING[model_type].model_type == model_type
            # transformers also has models of one stack in the tables of encoder-decoders.
            counted = kind not in OF_ENCODER_DECODERS or CONFIG_MAPPING[model_type].is_encoder_decoder
            if named and counted and not model_type.startswith("placed_"):
                found[model_type] = (*found.get(model_type, ()), kind)
    return found


def survey() -> Iterator[Surveyed]:
    """Derives and verifies every family in turn; the first time, this takes a minute."""
    for model_type, kinds in sorted(families().items()):
        yield survey_one(model_type, kinds)


def survey_one(model_type: str, kinds: tuple[str, ...]) -> Surveyed:
    """Derives and verifies one family."""
    try:
        host = host_of(model_type)
        result = verified(host)
    except MixlnError as error:
        return Surveyed(model_type=model_type, kinds=kinds, reason=str(error))
    if result.failure:
        return Surveyed(model_type=model_type, kinds=kinds, reason=result.failure)
    kind = next(iter(host.heads), kinds[-1])
    return Surveyed(model_type=model_type, kinds=kinds, kind=kind, host=host, difference=result.difference)
