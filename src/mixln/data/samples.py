"""Records of the data on which a model was measured; nothing here needs torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class TextSample:
    """Windows of a text.

    :param description: description of the text.
    :param tokens: tokens in the windows without padding; `asked` is the number requested.
    :param windows: number of windows, of `length` tokens each.
    :param held_out: number of held-out documents read, of `held_out_documents`; `others` is the number of other documents read.
    :param from_beginning: whether a text of one document was read from its beginning.
    """

    description: str
    tokens: int
    asked: int
    windows: int
    length: int
    held_out: int
    held_out_documents: int
    others: int = 0
    from_beginning: bool = False


@dataclass(frozen=True, kw_only=True)
class ImageSample:
    """Images.

    :param description: description of the data set.
    :param images: number of images.
    :param held_out: whether a comparison held them out.
    """

    description: str
    images: int
    labelled: bool
    held_out: bool
