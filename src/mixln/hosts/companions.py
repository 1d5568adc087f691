"""Writes the companion of a model's weights: its tokenizer or image processor.

A tokenizer saves only the settings that its class knows and drops the rest: a Llama tokenizer without `"legacy": true` gives
different ids. So the original files are copied, and the result is read back and compared.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import AutoImageProcessor, AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase

from mixln.errors import DataError, first_line
from mixln.records import read_json

TOKENIZER_CONFIG = "tokenizer_config.json"
TOKENIZER_FILES = (
    "tokenizer*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.j*",
    "additional_chat_templates/*.jinja",
    "tokenizer*.model*",
    "sentencepiece*.model",
    "spiece.model",
    "spm.model",
    "tekken.json",
    "vocab.*",
    "merges.txt",
)
"""Tokenizer files besides those that the class names, as :meth:`pathlib.Path.glob` patterns."""
IMAGE_FILES = ("preprocessor_config.json", "processor_config.json")
# Double spaces, tabs, accents, other scripts and an emoji: tokenizers differ in how they normalize and split these.
PROBE = "The dog  and 1,234 cats.\n\tNaïve café — Ωλ 漢字 🙂 don't\r\n x=[3]; "


def write_companion(companion: Any, folder: Path, *, origin: str = "", config: PreTrainedConfig | None = None) -> None:
    """Writes a tokenizer or image processor into a model folder that is still being written.

    :param origin: folder or hub id that it was loaded from; empty for a new one, which is saved.
    :param config: config of the model, if the folder has no `config.json` yet; transformers needs it to choose the tokenizer class.
    :raises DataError: if the written tokenizer would give different tokens from `companion`.
    """
    if config is not None:
        config.save_pretrained(folder)
    is_tokenizer = isinstance(companion, PreTrainedTokenizerBase)
    if copied := _copied(companion, folder, origin):
        if is_tokenizer:
            _settle(companion, folder)
        if not _difference(companion, folder):
            return
        # The files do not reproduce the companion, for example after tokens were added to it: save it instead.
        for path in copied:
            path.unlink(missing_ok=True)
    companion.save_pretrained(folder)
    if is_tokenizer and (differs := _difference(companion, folder)):
        raise DataError(
            f"the tokenizer of {origin or 'this model'} cannot be written without change: {differs}; "
            "repair its files, or remove them and copy them into the result by hand"
        )


def _copied(companion: Any, folder: Path, origin: str) -> list[Path]:
    """Copies the files of a companion and returns the copies."""
    place = _folder(origin)
    if place is None:
        return []
    copies = []
    for path in _files(companion, place):
        target = folder / path.relative_to(place)
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, target)
        copies.append(target)
    return copies


def _files(companion: Any, place: Path) -> Iterator[Path]:
    patterns: tuple[str, ...] = IMAGE_FILES
    if isinstance(companion, PreTrainedTokenizerBase):
        patterns = (*TOKENIZER_FILES, *companion.vocab_files_names.values())
    yield from sorted({path for pattern in patterns for path in place.glob(pattern) if path.is_file()})


def _folder(origin: str) -> Path | None:
    """The local folder of a folder name or cached hub id; `None` if there is none."""
    if not origin:
        return None
    if Path(origin).is_dir():
        return Path(origin)
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        cached = (
            try_to_load_from_cache(origin, name)
            for name in ("tokenizer.json", TOKENIZER_CONFIG, *IMAGE_FILES, "config.json")
        )
        return next((Path(path).parent for path in cached if isinstance(path, str)), None)
    except HFValidationError:
        return None


def _settle(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Adds the padding token set at run time and the tokenizer class to the copied settings, if they lack them."""
    path = folder / TOKENIZER_CONFIG
    entries: dict[str, Any] = read_json(path) if path.is_file() else {}
    wanted: dict[str, Any] = {}
    if "tokenizer_class" not in entries:
        wanted["tokenizer_class"] = type(tokenizer).__name__
    try:
        padding = _read(tokenizer, folder).pad_token
    except Exception:  # unreadable before `tokenizer_class` is written
        padding = None
    if tokenizer.pad_token is not None and tokenizer.pad_token != padding:
        wanted["pad_token"] = tokenizer.pad_token
    if wanted:
        path.write_text(json.dumps({**entries, **wanted}, indent=2, ensure_ascii=False) + "\n", "utf-8")


def _difference(companion: Any, folder: Path) -> str:
    """Describes how the companion in a folder differs from the given one; empty if it does not."""
    try:
        written = _read(companion, folder)
        if not isinstance(companion, PreTrainedTokenizerBase):
            return "" if written.to_dict() == companion.to_dict() else "its settings change"
        for text in _texts(companion):
            before, after = (tokenizer(text)["input_ids"] for tokenizer in (companion, written))
            if before != after:
                return f"{text!r} has {len(before)} tokens and would have {len(after)} or different ones"
        if companion.special_tokens_map != written.special_tokens_map:
            return "its special tokens change"
    except Exception as error:  # transformers raises many types for files that it cannot read
        return first_line(error)
    return ""


def _read(companion: Any, folder: Path) -> Any:
    auto = AutoTokenizer if isinstance(companion, PreTrainedTokenizerBase) else AutoImageProcessor
    return auto.from_pretrained(folder, trust_remote_code=False)


def _texts(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Test strings to compare two tokenizers: :data:`PROBE`, and each special token between words."""
    return [PROBE, *(f"dog{token}and {token} the{token}" for token in dict.fromkeys(tokenizer.all_special_tokens))]
