"""Finds and checks a model in a folder, on the hub or in a GGUF file without its weights, then loads it completely or not at all."""

from __future__ import annotations

import hashlib
import io
import logging
import re
import shutil
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
    MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING,
    MODEL_MAPPING,
    AutoImageProcessor,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForImageTextToText,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSpeechSeq2Seq,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils.import_utils import is_gguf_available

from mixln.compat import dequantized
from mixln.errors import CheckpointError, DataError, MixlnError, SettingsError, StoreError, first_line, unknown
from mixln.files import bytes_texts, existing, folder_atomic, holding
from mixln.hosts import configs, gguf_header, refuse_pieces, saved_class, weights
from mixln.hosts.companions import write_companion
from mixln.hosts.families import host_of
from mixln.model_names import MODEL_KINDS, check_local_model, local_path
from mixln.normalizers import check_normalizer
from mixln.quiet import quiet

log = logging.getLogger(__name__)

Task = Literal["causal-lm", "masked-lm", "image-classification", "seq2seq-lm", "speech-seq2seq", "none"]

# In this order: the first task whose classes include the architecture in the config is the model's.
HEADS: tuple[tuple[Task, Any, Any], ...] = (
    ("causal-lm", MODEL_FOR_CAUSAL_LM_MAPPING, AutoModelForCausalLM),
    # With text alone as its input, a multimodal model is a causal language model.
    ("causal-lm", MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING, AutoModelForImageTextToText),
    ("seq2seq-lm", MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING, AutoModelForSeq2SeqLM),
    ("speech-seq2seq", MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING, AutoModelForSpeechSeq2Seq),
    ("masked-lm", MODEL_FOR_MASKED_LM_MAPPING, AutoModelForMaskedLM),
    ("image-classification", MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING, AutoModelForImageClassification),
    ("none", MODEL_MAPPING, AutoModel),
)
"""Task, config class → model classes, the `Auto*` class that builds them."""
PRETRAINED_ON_MASKS = tuple(
    f"{family}ForPreTraining" for family in ("Albert", "Bert", "BigBird", "FNet", "MegatronBert", "MobileBert")
)
"""Classes with two heads, one of them a masked-language-model head."""
WEIGHTS = (weights.WHOLE, weights.INDEX)
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
"""Weights in pickle format: reading a pickle can run code."""
ADAPTER = "adapter_config.json"
"""Config file that PEFT writes with an adapter. transformers applies the adapter to any model in the same folder."""
PARTS = ("text", "vision", "audio", "encoder", "decoder")
"""Prefixes of the names of sub-configs that describe a separate model."""
NAMELESS = ("model", "models", "checkpoint", "final", "best")
"""Folder names that are meaningless without the parent's name."""
PRECISIONS = ("float32", "bfloat16", "float16")
HUB_SECONDS = 10.0
"""Timeout of a request to the hub."""
GGUF_FORMAT = 1
"""Version of the conversion; part of the name in the cache, so that results of an older conversion are not used."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A model that has been found and checked, but not loaded.

    :param name: name as the user gave it.
    :param title: short label: the last part of the path or hub id; for a trial, its placement and seed.
    :param path: folder or hub id for `from_pretrained`; for a GGUF file, the cache folder of its conversion.
    :param task: task of the model's class, from the architecture in its config.
    :param gguf: file to be converted into `path`.
    :param revision: for a hub id, the commit at which its files are read; empty if unknown, and for folders.
    :param pickled: whether the weights exist only as a pickle.
    :param trial: text settings of the comparison that the trial belongs to, from its `experiment.json`.
    :param trial_tokens: training tokens of that trial.
    :param images: image settings of the comparison of classifiers that the trial belongs to, from its `experiment.json`;
        `images_fingerprint`: fingerprint of the images in its trials.
    """

    name: str
    title: str
    path: str
    task: Task
    config: PreTrainedConfig
    gguf: Path | None = None
    revision: str = ""
    pickled: bool = False
    trial: dict[str, Any] | None = None
    trial_tokens: int | None = None
    images: dict[str, Any] | None = None
    images_fingerprint: str = ""

    @property
    def takes_images(self) -> bool:
        """Whether the model's input is images, not tokens."""
        classes: Any = MODEL_MAPPING[type(self.config)]
        return (classes[0] if isinstance(classes, tuple) else classes).main_input_name == "pixel_values"


def titles_of(sources: Sequence[Source]) -> list[str]:
    """A unique label for each model: its title, followed by its name if two titles are equal."""
    count = Counter(source.title for source in sources)
    names = [s.title if count[s.title] == 1 else f"{s.title} ({s.name})" for s in sources]
    if len(set(names)) < len(names):
        doubled = next(name for name in names if names.count(name) > 1)
        raise SettingsError(f"models must not repeat, got {doubled} twice")
    return names


def find_model(name: str, *, cache: Path, encoder_decoders: bool = False) -> Source:
    """Finds a model and reads its config, but not its weights. Also finds a pickle, which :func:`load` refuses.

    :param name: a hub id; a folder with config.json; a .gguf file, a folder with one, or `folder-or-hub-id:file.gguf`.
    :param cache: cache folder; GGUF files are converted into its subfolder `gguf`.
    :param encoder_decoders: also accept an encoder-decoder, which can be placed but not diagnosed.
    :raises CheckpointError: if the model does not exist, its config cannot be used, or its kind cannot be diagnosed.
    """
    source = _found(name, cache)
    if source.config.is_encoder_decoder and not encoder_decoders:
        raise CheckpointError(
            f"model {name} is an encoder-decoder ({source.config.model_type}), which can be placed and converted only; "
            "use a model with a single stack of layers"
        )
    return source


def _found(name: str, cache: Path) -> Source:
    # A local path takes precedence over a hub id of the same name.
    path = local_path(name)
    if name and path.is_dir():
        return _in_folder(name, path, cache)
    if path.is_file():
        if path.suffix == ".gguf":
            return _in_gguf(name, path, cache)
        raise CheckpointError(
            f"model {name} is a file that does not hold a complete model; name its folder {path.parent}, or {MODEL_KINDS}"
        )
    place, colon, file = name.rpartition(":")
    if colon and file.endswith(".gguf"):
        folder = local_path(place)
        if not folder.is_dir():
            return _in_gguf(name, _download(name, place, file), cache)
        if (folder / file).is_file():
            return _in_gguf(name, folder / file, cache)
        raise CheckpointError(f"model {name}: the folder {place} does not contain {file}; {_ggufs(folder)}")
    check_local_model(name)
    return _on_hub(name, cache)


def prepare(source: Source) -> None:
    """Converts a GGUF file to float32 in the cache, unless this has been done; other sources need no preparation.

    :raises CheckpointError: if the file cannot be converted; :class:`StoreError` if the disk is full.
    """
    target = Path(source.path)
    if source.gguf is None or (target / "config.json").is_file():
        return
    with quiet():
        empty = weights.check_size(
            source.name, source.config, AutoModelForCausalLM, *gguf_header.check(source.name, source.gguf)
        )
        # 4 bytes per parameter in float32.
        need = 4 * sum(parameter.numel() for parameter in empty.parameters())
        free = shutil.disk_usage(existing(target)).free
        if free < need:
            raise StoreError(
                f"cache {target.parent} needs {bytes_texts(need, free)[0]} for {source.title} in float32, but its disk has "
                f"{bytes_texts(need, free)[1]} free; choose another folder with --cache"
            )
        log.info(f"{source.title}: converting to float32, once; this takes up to a minute per GB of the result")
        where: dict[str, Any] = {
            "pretrained_model_name_or_path": source.gguf.parent,
            "gguf_file": source.gguf.name,
        }
        try:
            # Another process may convert the same file at the same time: the first result is kept.
            # The reader draws a progress bar of its own, which transformers' settings do not control.
            with folder_atomic(target, keeps=holding("config.json")) as folder, redirect_stderr(io.StringIO()):
                loaded: Any = AutoModelForCausalLM.from_pretrained(
                    **where,
                    dtype=torch.float32,
                    **dequantized(),
                    output_loading_info=True,
                )
                model, info = loaded
                refuse_incomplete(source, info)
                # A model read from a GGUF file cannot be saved, so a model of the same config saves its weights.
                empty.save_pretrained(folder, state_dict=model.state_dict())
                write_companion(AutoTokenizer.from_pretrained(**where), folder)
        except MixlnError:
            raise
        except Exception as error:  # GGUF readers raise many types
            raise CheckpointError(
                f"model {source.name} cannot be converted from GGUF: {_reason(error)}; "
                "use the original model in transformers' format"
            ) from error


def identity(source: Source) -> str:
    """Identifies a model by its content: for a folder, the SHA-256 of its config and weights; else the hub id with its revision.

    :raises CheckpointError: if the headers of its weights do not match its files, which might then be of any size.
    """
    folder = Path(source.path)
    if not folder.is_dir():
        return f"{source.path}@{source.revision}"
    digest = hashlib.sha256()
    present = [
        path
        for path in sorted(folder.iterdir())
        if path.name == "config.json" or path.suffix in (".safetensors", ".bin")
    ]
    read = [] if source.pickled else weights.files(folder, source.name)
    weights.stored(read, source.name)
    for path in present:
        # A file that is not part of the model may be corrupt and of any size: its name and size are enough.
        if path.suffix == ".safetensors" and path not in read and not weights.is_sound(path):
            digest.update(f"{path.name} {path.stat().st_size}".encode())
            continue
        with path.open("rb") as file:
            digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    if len(read) > 1 and read != [path for path in present if path.suffix == ".safetensors"]:
        # Only the index tells which of the files belong to the model.
        digest.update("".join(path.name for path in read).encode())
    return digest.hexdigest()


def own_precision(source: Source) -> str:
    """The number format of a checkpoint: that of its config, or float32 if it has none and for GGUF files."""
    return str((None if source.gguf else source.config.dtype) or "float32").removeprefix("torch.")


def load(source: Source, *, dtype: str = "float32", device: str = "cpu", whole: bool = False) -> PreTrainedModel:
    """Loads a model in evaluation mode. Strict: every weight of its layers comes from the checkpoint.

    :param dtype: float32, bfloat16 or float16.
    :param device: for example cpu, cuda or cuda:1.
    :param whole: load the class that was saved, with every weight of the checkpoint; else a class with the task's head or none.
    :raises CheckpointError: if weights are missing, misshapen, unreadable, not floating point or not finite, or the config
        describes a far larger model; only the pooler of a model without a head may be missing. :class:`SettingsError` for an
        invalid dtype or device.
    """
    if dtype not in PRECISIONS:
        raise SettingsError(unknown("precision", dtype, PRECISIONS))
    refuse_pickle(source)
    prepare(source)
    auto = (_class_as_saved(source.config) if whole else None) or _head(source)[1]
    with quiet():
        try:
            check_stored(source, auto)
            model, info = auto.from_pretrained(
                source.path,
                **stored_at(source),
                dtype=getattr(torch, dtype),
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # reported instead of raised, and refused below
                trust_remote_code=False,  # explicit, because None asks at the terminal
                use_safetensors=True,
            )
        except MixlnError:
            raise
        except Exception as error:  # transformers, safetensors and the hub client raise many types
            raise CheckpointError(
                f"model {source.name} cannot be loaded: {_reason(error)}; repair the checkpoint or download it again"
            ) from error
    refuse_incomplete(source, info)
    if whole and (lost := [key for key in info["unexpected_keys"] if not weights.is_constant(key)]):
        raise CheckpointError(
            f"model {source.name} cannot be written without loss: {type(model).__name__} does not use weight "
            f"{min(lost)}; only diagnose supports it"
        )
    for key, weight in model.named_parameters():
        if weight.is_floating_point() and not weight.isfinite().all():
            raise CheckpointError(
                f"model {source.name} has a weight that is not finite, {key}: it is corrupt, or needs another --precision; "
                "download or train it again"
            )
    try:
        return model.to(device).eval()
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch was built without CUDA
        raise SettingsError(f"device {device!r} cannot hold the model: {_reason(error)}; use cpu") from error


def _head(source: Source) -> tuple[Any, Any]:
    """(model class, `Auto*` class) of the model's task; a decoder that sees both ways has no class, and is built as a causal one."""
    kind = type(source.config)
    heads = ((mapping[kind], auto) for task, mapping, auto in HEADS if task == source.task and kind in mapping)
    return next(heads, (None, AutoModelForCausalLM))


def stored_at(source: Source) -> dict[str, Any]:
    """Arguments of `from_pretrained` besides the path: the checked config and, for a hub id, its commit."""
    return {"config": source.config, **({"revision": source.revision} if source.revision else {})}


def check_stored(source: Source, kind: Any, config: PreTrainedConfig | None = None) -> None:
    """Checks a model's config against the headers of its weights; see :func:`mixln.hosts.weights.check`.

    :param kind: class that will be built.
    :param config: config that it will be built from; by default the model's own.
    """
    folder = Path(source.path)
    if not folder.is_dir():
        folder = _fetched(source)
    tensors = weights.stored(weights.files(folder, source.name), source.name)
    weights.check(source.name, config or source.config, kind, tensors)


def _fetched(source: Source) -> Path:
    """The hub cache's folder for a hub id; downloads the weights if they are missing."""
    from huggingface_hub import snapshot_download

    def fetch(*names: str) -> Path:
        return Path(snapshot_download(source.path, revision=source.revision or None, allow_patterns=list(names)))

    folder = fetch(weights.WHOLE)
    if (folder / weights.WHOLE).is_file():
        return folder
    folder = fetch(weights.INDEX)
    return fetch(*weights.shards(folder, source.name))


def _class_as_saved(config: PreTrainedConfig) -> Any:
    """The class that a checkpoint was saved from, stock or placed; `None` if there is no class of that name."""
    if config.model_type.startswith("placed_"):
        return saved_class(host_of(config.model_type.removeprefix("placed_")), config)
    return getattr(transformers, (config.architectures or [""])[0], None)


def tokenizer_of(source: Source) -> PreTrainedTokenizerBase:
    """Loads the model's tokenizer.

    :raises DataError: if it has none, or one with more tokens than the model's embedding.
    """
    prepare(source)
    remedy = "add tokenizer.json and tokenizer_config.json to the folder of its config.json"
    missing = f"model {source.name} has no tokenizer: its files are missing; {remedy}"
    check_normalizer(
        source.path
    )  # before loading; the loaded tokenizer is checked too, for hub ids and other file formats
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(source.path, **stored_at(source), trust_remote_code=False)
            check_normalizer(source.name, tokenizer)
            tokenizer.encode("A word.")  # settings of a wrong type fail only when used
    except DataError:
        raise
    except Exception as error:  # transformers raises OSError, ValueError and others for missing files
        folder = Path(source.path)
        if folder.is_dir() and not any(
            path
            for pattern in ("*token*", "*vocab*", "*.model", "*tekken*", "*.spm", "merges.txt")
            for path in folder.glob(pattern)
        ):
            raise DataError(missing) from error
        raise DataError(
            f"model {source.name} has no tokenizer that can be loaded: {_reason(error)}; {remedy}"
        ) from error
    if len(tokenizer) <= len(tokenizer.all_special_tokens):  # transformers' empty default if the files are missing
        raise DataError(missing)
    size: int = configs.text_part(source.config).vocab_size  # type: ignore[attr-defined]
    if max(tokenizer.get_vocab().values()) >= size:
        raise DataError(
            f"model {source.name}: its tokenizer has {len(tokenizer):,} tokens, but its embedding only {size:,}; {remedy} that match"
        )
    return tokenizer


def image_processor_of(source: Source) -> Any:
    """Loads the model's image processor.

    :raises DataError: if it has none.
    """
    try:
        with quiet():
            return AutoImageProcessor.from_pretrained(source.path, **stored_at(source), trust_remote_code=False)
    except Exception as error:
        raise DataError(
            f"model {source.name} has no image processor that can be loaded: {_reason(error)}; "
            "add preprocessor_config.json to the folder of its config.json"
        ) from error


def head_of(source: Source) -> Any:
    """The class that :func:`load` builds by default: with the task's head, or none."""
    return _head(source)[0]


def device() -> str:
    """The default device: a CUDA GPU, else an Apple GPU, else the CPU."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _in_folder(name: str, folder: Path, cache: Path) -> Source:
    if not (folder / "config.json").is_file():
        ggufs = sorted(folder.glob("*.gguf"))
        if len(ggufs) == 1:
            return _in_gguf(name, ggufs[0], cache)
        if ggufs:
            raise CheckpointError(f"model {name} contains several GGUF files; {_ggufs(folder)}")
        if (folder / ADAPTER).is_file():
            raise CheckpointError(
                f"model {name} is a folder with an adapter but no model; merge the adapter into its model (PEFT's merge_and_unload), "
                "and name the saved result"
            )
        if (folder / "model" / "config.json").is_file():
            raise CheckpointError(f"model {name} is a folder without config.json; did you mean {Path(name) / 'model'}?")
        raise CheckpointError(f"model {name} is a folder without config.json; {MODEL_KINDS}")
    files = {path.name for path in folder.iterdir()}
    if odd := [
        path.name for path in sorted(folder.iterdir()) if path.exists() and not (path.is_file() or path.is_dir())
    ]:
        raise CheckpointError(
            f"model {name} contains {odd[0]}, a pipe or device, which would be read forever; remove it"
        )
    config = _config(name, str(folder))
    place = folder.absolute()
    # Trainer's checkpoint-500 and the like.
    of_training = re.fullmatch(r"checkpoint-\d+", place.name)
    title = f"{place.parent.name}/{place.name}" if of_training or place.name in NAMELESS else place.name
    return _source(name, title, str(folder), config, files)


def _on_hub(name: str, cache: Path) -> Source:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    try:
        # A single request: transformers would retry for a wrong name or without a network.
        info = HfApi().model_info(name, timeout=HUB_SECONDS)
        files = {file.rfilename for file in info.siblings or ()}
    except HFValidationError as error:
        raise CheckpointError(f"model {name!r} does not exist and is not a valid hub id; {MODEL_KINDS}") from error
    except RepositoryNotFoundError as error:
        raise CheckpointError(
            f"model {name!r} is not a local path, and the hub has no such public model; check the name, log in with "
            f"`hf auth login` if it is private, or {MODEL_KINDS}"
        ) from error
    except Exception as error:  # no network, a timeout or offline mode: use the hub's cache
        try:
            with quiet():
                folder = Path(snapshot_download(name, local_files_only=True))
        except Exception:
            raise CheckpointError(
                f"model {name!r} is not a local path, and could not be downloaded: {_reason(error)}; "
                f"check the name and the network, or {MODEL_KINDS}"
            ) from error
        source = _in_folder(name, folder, cache)
        return replace(source, title=name.rpartition("/")[2])
    if "config.json" not in files:
        ggufs = sorted(file for file in files if file.endswith(".gguf"))
        remedy = f"name one of its GGUF files, for example {name}:{ggufs[0]}" if ggufs else MODEL_KINDS
        raise CheckpointError(f"model {name} on the hub has no config.json; {remedy}")
    config = _config(name, name, **({"revision": info.sha} if info.sha else {}))
    return replace(_source(name, name.rpartition("/")[2], name, config, files), revision=info.sha or "")


def _download(name: str, repository: str, file: str) -> Path:
    from huggingface_hub import HfApi, hf_hub_download, try_to_load_from_cache

    try:
        if isinstance(cached := try_to_load_from_cache(repository, file), str):
            return Path(cached)
        HfApi().model_info(repository, timeout=HUB_SECONDS)  # fails at once where the download would retry
        log.info(f"{file}: downloading from the hub, once")
        return Path(hf_hub_download(repository, file))
    except Exception as error:  # the hub client raises many types: no network, model, file or permission
        raise CheckpointError(
            f"model {name!r}: {repository} is not a folder, and {file} could not be downloaded: {_reason(error)}; "
            "check the name and the network"
        ) from error


def _in_gguf(name: str, file: Path, cache: Path) -> Source:
    if not is_gguf_available():
        raise CheckpointError(f'model {name} requires the package gguf; run pip install "mixln[gguf]"')
    with file.open("rb") as content:
        if content.read(4) != b"GGUF":
            raise CheckpointError(
                f"model {name} is not a GGUF file: it does not begin with the letters GGUF; {MODEL_KINDS}"
            )
        content.seek(0)
        # By content, so that a renamed or copied file is not converted again. 80 bits suffice for a cache.
        key = hashlib.file_digest(content, "sha256").hexdigest()[:20]
    if not (place := existing(cache)).is_dir():
        raise StoreError(f"cache {cache} cannot be created: {place} is a file; choose another folder with --cache")
    converted = cache / "gguf" / f"{key}-{GGUF_FORMAT}"
    if (converted / "config.json").is_file():
        config = _config(name, str(converted))
    else:
        gguf_header.check(name, file)
        config = _config(name, str(file.parent), gguf_file=file.name)
        # A GGUF file does not name a class; the decoders among them are causal language models.
        if not config.architectures and type(config) in MODEL_FOR_CAUSAL_LM_MAPPING:
            config.architectures = [_names(MODEL_FOR_CAUSAL_LM_MAPPING, config)[0]]
    source = _source(name, file.stem, str(converted), config, WEIGHTS)
    if source.task != "causal-lm":
        raise CheckpointError(
            f"model {name} is a GGUF file of {config.model_type!r}, which is not a decoder; {MODEL_KINDS}"
        )
    return replace(source, gguf=file)


def _ggufs(folder: Path) -> str:
    """Remedy for a GGUF file that was not named, or not found."""
    names = sorted(path.name for path in folder.glob("*.gguf"))
    return f"name one as {folder}:{names[0]}; it contains {', '.join(names)}" if names else MODEL_KINDS


def _config(name: str, path: str, **where: str) -> PreTrainedConfig:
    """Reads a config without running code that comes with the model and without prompting at the terminal."""
    try:
        with quiet():
            configs.check_file(Path(path) / "config.json")
            entries, _ = PreTrainedConfig.get_config_dict(path, **where)
            return configs.config_of(entries)
    except configs.UnknownFamily as error:
        raise CheckpointError(
            f"model {name} has the model_type {error.family!r} in its config, which transformers {version('transformers')} does not "
            f"know (code that comes with a model is not run); {MODEL_KINDS}"
        ) from error
    except Exception as error:  # transformers raises many types here, including its own validation errors
        raise CheckpointError(
            f"model {name}: its config cannot be read: {_reason(error)}; correct it, or {MODEL_KINDS}"
        ) from error


def _source(name: str, title: str, path: str, config: PreTrainedConfig, files: Collection[str]) -> Source:
    """Builds the source at `path`, if its kind can be diagnosed.

    :param files: names of its files.
    """
    task = _task(name, config)
    if task != "causal-lm" and (parts := [part for part in config.sub_configs if part.startswith(PARTS)]):
        raise CheckpointError(
            f"model {name} ({config.model_type}) consists of several models ({', '.join(parts)}); "
            "use a model with a single stack of layers, or a language model that also takes images"
        )
    refuse_pieces(name, files)
    if ADAPTER in files:
        raise CheckpointError(
            f"model {name} has an adapter in the same folder ({ADAPTER}), which transformers would apply to its weights; if it is already "
            "merged into them, move the adapter_* files elsewhere; otherwise merge it first (PEFT's merge_and_unload)"
        )
    if not any(file in files for file in (*WEIGHTS, *PICKLES)):
        raise CheckpointError(f"model {name} has a config.json but no weights; it needs {WEIGHTS[0]}")
    pickled = not any(file in files for file in WEIGHTS)
    return Source(name=name, title=title, path=path, task=task, config=config, pickled=pickled)


def refuse_pickle(source: Source) -> None:
    """:raises CheckpointError: if the weights exist only as a pickle, which can run code."""
    if source.pickled:
        raise CheckpointError(
            f"model {source.name} has its weights only as a pickle ({PICKLES[0]}), which can run code when it is read; "
            f"use a copy with {WEIGHTS[0]}, or write one with save_pretrained if you trust the file"
        )


def _task(name: str, config: PreTrainedConfig) -> Task:
    architecture = (config.architectures or [""])[0]
    for task, mapping, _ in HEADS:
        if type(config) in mapping and architecture in _names(mapping, config):
            return "masked-lm" if task == "causal-lm" and _sees_both_ways(config) else task
    if architecture in PRETRAINED_ON_MASKS and type(config) in MODEL_FOR_MASKED_LM_MAPPING:
        return "masked-lm"
    if type(config) in MODEL_MAPPING:
        return "none"
    raise CheckpointError(
        f"model {name}: transformers has no class for {config.model_type!r} without a head; {MODEL_KINDS}"
    )


def _sees_both_ways(config: PreTrainedConfig) -> bool:
    """Whether it is a placed decoder without a causal mask, which `mixln compare --task masked-lm` trains."""
    return configs.is_placed(config) and getattr(config, "is_causal", True) is False


def _names(mapping: Any, config: PreTrainedConfig) -> list[str]:
    classes = mapping[type(config)]
    return [cls.__name__ for cls in (classes if isinstance(classes, tuple) else (classes,))]


def refuse_incomplete(source: Source, info: dict[str, Any]) -> None:
    """:raises CheckpointError: if a weight of the loaded model does not come from the checkpoint."""
    missing = [key for key in info["missing_keys"] if source.task != "none" or not key.startswith("pooler.")]
    misshapen = [key if isinstance(key, str) else key[0] for key in info["mismatched_keys"]]
    for what, keys in (("missing", missing), ("misshapen", misshapen)):
        if keys:
            raise CheckpointError(
                f"model {source.name} cannot be loaded completely: weight {min(keys)} is {what}"
                f"{f', and {len(keys) - 1} more' if len(keys) > 1 else ''}; its config and its weights do not belong together"
            )


def _reason(error: BaseException) -> str:
    return first_line(error.__cause__ or error)
