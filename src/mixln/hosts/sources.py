"""Where a model comes from: a hub id, a folder, a GGUF file. First found and checked cheaply, then loaded whole or not at all."""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Sequence
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
    MODEL_FOR_MASKED_LM_MAPPING,
    MODEL_MAPPING,
    AutoImageProcessor,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForMaskedLM,
    AutoTokenizer,
    GgufConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils.import_utils import is_gguf_available

from mixln.errors import CheckpointError, DataError, MixlnError, SettingsError, StoreError, first_line, unknown
from mixln.files import bytes_texts, existing, folder_atomic, holding
from mixln.hosts import HOSTS, configs, gguf_header, refuse_pieces, saved_class, weights
from mixln.hosts.companions import write_companion
from mixln.normalizers import check_normalizer
from mixln.quiet import quiet

Task = Literal["causal-lm", "masked-lm", "image-classification", "none"]
Say = Callable[[str], None]

HEADS: dict[Task, tuple[Any, Any]] = {
    "causal-lm": (MODEL_FOR_CAUSAL_LM_MAPPING, AutoModelForCausalLM),
    "masked-lm": (MODEL_FOR_MASKED_LM_MAPPING, AutoModelForMaskedLM),
    "image-classification": (MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING, AutoModelForImageClassification),
    "none": (MODEL_MAPPING, AutoModel),
}
"""Task → (config class → model classes, the `Auto*` class that builds them)."""
PRETRAINED_ON_MASKS = tuple(
    f"{family}ForPreTraining" for family in ("Albert", "Bert", "BigBird", "FNet", "MegatronBert", "MobileBert")
)
"""Classes with two heads, one of which is that of the masked language model."""
WEIGHTS = (weights.WHOLE, weights.INDEX)
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
"""Weights in a format whose readers have run code that was hidden in it."""
ADAPTER = "adapter_config.json"
"""Config file that PEFT writes beside an adapter. transformers applies the adapter to any model in the same folder."""
PARTS = ("text", "vision", "audio", "encoder", "decoder")
"""How the names of sub-configs begin that describe a model of their own."""
NAMELESS = ("model", "models", "checkpoint", "final", "best")
"""Names of folders that say nothing without that of the folder around."""
PRECISIONS = ("float32", "bfloat16", "float16")
KINDS = "name a hub id, a folder that save_pretrained wrote, a .gguf file, or a folder of mixln compare"
HUB_SECONDS = 10.0
"""How long the hub may take to answer before it counts as out of reach."""
GGUF_FORMAT = 1
"""Changes whenever the conversion changes, so that an old cache is not read as a new one."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a model is: found and checked, but not loaded.

    :param name: what the user gave.
    :param title: a short label: the last part of the path or hub id; of a trial, its placement and seed.
    :param path: folder or hub id for `from_pretrained`; of a GGUF file, the folder in the cache for its conversion.
    :param task: what the model was made for, by its config's architecture.
    :param gguf: the file that is to be converted into `path`.
    :param revision: of a hub id, the commit that its files are read at; empty where that is not known, and for folders.
    :param pickled: its weights are there as a pickle only.
    :param trial: text settings of the comparison that the model is a trial of, as in its `experiment.json`.
    :param trial_tokens: training tokens of that trial.
    :param images: image settings of the comparison of classifiers that the model is a trial of, as in its `experiment.json`;
        `images_fingerprint` as its trials saw them.
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
    def facts(self) -> dict[str, str]:
        """What a report says of it."""
        placed = {"placement": self.config.placement["name"]} if configs.is_placed(self.config) else {}
        return {"source": self.name, "family": self.config.model_type, **placed}

    @property
    def takes_images(self) -> bool:
        """Whether the model looks at images and not at tokens."""
        classes: Any = MODEL_MAPPING[type(self.config)]
        return (classes[0] if isinstance(classes, tuple) else classes).main_input_name == "pixel_values"


def titles_of(sources: Sequence[Source]) -> list[str]:
    """A different name for each model: its title, or what the user gave where two have the same."""
    count = Counter(source.title for source in sources)
    names = [s.title if count[s.title] == 1 else f"{s.title} ({s.name})" for s in sources]
    if len(set(names)) < len(names):
        doubled = next(name for name in names if names.count(name) > 1)
        raise SettingsError(f"models must not repeat, got {doubled} twice")
    return names


def silent(text: str) -> None:
    """Says nothing."""


def find_model(name: str, *, cache: Path, say: Say = silent) -> Source:
    """Finds a model and reads its config, without its weights. A pickle is found too, but :func:`load` does not read it.

    :param name: a hub id; a folder with config.json; a .gguf file, a folder with one, or `folder-or-hub-id:file.gguf`.
    :param cache: folder under which GGUF files are converted, in `gguf`.
    :param say: takes one line of news, before something that takes long.
    :raises CheckpointError: if there is no such model, its config cannot be used, or it is none that can be diagnosed.
    """
    path = _local(name)
    if name and path.is_dir():
        return _in_folder(name, path, cache)
    if path.is_file():
        if path.suffix == ".gguf":
            return _in_gguf(name, path, cache)
        raise CheckpointError(
            f"model {name} is a file that holds no whole model; name its folder {path.parent}, or {KINDS}"
        )
    place, colon, file = name.rpartition(":")
    if colon and file.endswith(".gguf"):
        folder = _local(place)
        if not folder.is_dir():
            return _in_gguf(name, _download(name, place, file, say), cache)
        if (folder / file).is_file():
            return _in_gguf(name, folder / file, cache)
        raise CheckpointError(f"model {name}: the folder {place} holds no {file}; {_ggufs(folder)}")
    if (
        not name
        or name.startswith((".", "/", "~"))
        or name.count("/") > 1
        or name.endswith((".gguf", *WEIGHTS, *PICKLES))
    ):
        raise CheckpointError(f"model {name!r} does not exist; mend the path, or {KINDS}")
    return _on_hub(name, cache)


def prepare(source: Source, *, say: Say = silent) -> None:
    """Converts a GGUF file to float32 in the cache, if that has not been done; other sources need nothing.

    :param say: takes one line of news, before something that takes long.
    :raises CheckpointError: if the file cannot be converted; :class:`StoreError` if the disk has no room.
    """
    target = Path(source.path)
    if source.gguf is None or (target / "config.json").is_file():
        return
    with quiet():
        empty = weights.check_size(
            source.name, source.config, AutoModelForCausalLM, *gguf_header.check(source.name, source.gguf)
        )
        need = 4 * sum(parameter.numel() for parameter in empty.parameters())
        free = shutil.disk_usage(existing(target)).free
        if free < need:
            raise StoreError(
                f"cache {target.parent} needs {bytes_texts(need, free)[0]} for {source.title} in float32, and its disk has "
                f"{bytes_texts(need, free)[1]} free; name another folder with --cache"
            )
        say(f"{source.title}: converting to float32, once; it takes up to a minute for each GB of the result")
        where: dict[str, Any] = {
            "pretrained_model_name_or_path": source.gguf.parent,
            "gguf_file": source.gguf.name,
        }
        try:
            # The reader draws its own progress bar, which the settings of transformers do not reach.
            with folder_atomic(target, keeps=holding("config.json")) as folder, redirect_stderr(io.StringIO()):
                loaded: Any = AutoModelForCausalLM.from_pretrained(
                    **where,
                    dtype=torch.float32,
                    quantization_config=GgufConfig(dequantize=True),
                    output_loading_info=True,
                )
                model, info = loaded
                refuse_incomplete(source, info)
                # A model read from a GGUF file refuses to be saved; one of the same config takes its weights.
                empty.save_pretrained(folder, state_dict=model.state_dict())
                write_companion(AutoTokenizer.from_pretrained(**where), folder)
        except MixlnError:
            raise
        except Exception as error:  # the readers of GGUF raise many kinds
            raise CheckpointError(
                f"model {source.name} cannot be converted from GGUF: {_reason(error)}; "
                "name the model's original in the format of transformers"
            ) from error


def identity(source: Source) -> str:
    """What tells a model from another, wherever it lies: of a folder, the SHA-256 of its config and weights; else the hub id
    with its revision.

    :raises CheckpointError: if the headers of its weights do not fit its files, which may then be of any size.
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
        if path.suffix == ".safetensors" and path not in read and not weights.is_sound(path):
            digest.update(f"{path.name} {path.stat().st_size}".encode())
            continue
        with path.open("rb") as file:
            digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    if len(read) > 1 and read != [path for path in present if path.suffix == ".safetensors"]:
        # The index alone says which of the files are the model.
        digest.update("".join(path.name for path in read).encode())
    return digest.hexdigest()


def load(
    source: Source, *, dtype: str = "float32", device: str = "cpu", whole: bool = False, say: Say = silent
) -> PreTrainedModel:
    """Loads a model in evaluation mode. Strict: no weight of its layers is ever left as it was initialised.

    :param dtype: float32, bfloat16 or float16.
    :param device: for example cpu, cuda or cuda:1.
    :param whole: as the class that it was saved as, with every weight of the checkpoint; else with the head of its task or none.
    :raises CheckpointError: if weights are missing, misshapen, unreadable, not floating-point numbers or not finite, or the config
        describes a far larger model; only the pooler of a model without a head may be missing. :class:`SettingsError` for the dtype
        or the device.
    """
    if dtype not in PRECISIONS:
        raise SettingsError(unknown("precision", dtype, PRECISIONS))
    refuse_pickle(source)
    prepare(source, say=say)
    mapping, auto = HEADS[source.task]
    if type(source.config) not in mapping:  # a decoder that sees both ways
        mapping, auto = HEADS["causal-lm"]
    if whole:
        auto = _class_as_saved(source.config) or auto
    with quiet():
        try:
            check_stored(source, auto)
            model, info = auto.from_pretrained(
                source.path,
                **stored_at(source),
                dtype=getattr(torch, dtype),
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # so that they are reported, and refused below
                trust_remote_code=False,
                use_safetensors=True,
            )
        except MixlnError:
            raise
        except Exception as error:  # transformers, safetensors and the hub client raise many kinds
            raise CheckpointError(
                f"model {source.name} cannot be loaded: {_reason(error)}; mend or fetch the checkpoint again"
            ) from error
    refuse_incomplete(source, info)
    if whole and (lost := [key for key in info["unexpected_keys"] if not weights.is_constant(key)]):
        raise CheckpointError(
            f"model {source.name} cannot be written without loss: {type(model).__name__} has no place for weight "
            f"{min(lost)}; only diagnose can look at it"
        )
    for key, weight in model.named_parameters():
        if weight.is_floating_point() and not weight.isfinite().all():
            raise CheckpointError(
                f"model {source.name} has a weight that is not finite, {key}: it is damaged, or needs another --precision; "
                "fetch or train it again"
            )
    try:
        return model.to(device).eval()
    except (RuntimeError, AssertionError) as error:
        raise SettingsError(f"device {device!r} cannot hold the model: {_reason(error)}; use cpu") from error


def stored_at(source: Source) -> dict[str, Any]:
    """Arguments of `from_pretrained` besides the path: the checked config and, for a hub id, the commit that it was read at."""
    return {"config": source.config, **({"revision": source.revision} if source.revision else {})}


def check_stored(source: Source, kind: Any, config: PreTrainedConfig | None = None) -> None:
    """Holds a model's config against the headers of its weights; see :func:`mixln.hosts.weights.check`.

    :param kind: the class that will be built.
    :param config: what it will be built from; the model's own if left out.
    """
    folder = Path(source.path)
    if not folder.is_dir():
        folder = _fetched(source)
    found = weights.stored(weights.files(folder, source.name), source.name)
    weights.check(source.name, config or source.config, kind, found)


def _fetched(source: Source) -> Path:
    """The folder of the hub's cache with the weights of a hub id, which are fetched if they are not there."""
    from huggingface_hub import snapshot_download

    def fetch(*names: str) -> Path:
        return Path(snapshot_download(source.path, revision=source.revision or None, allow_patterns=list(names)))

    folder = fetch(weights.WHOLE)
    if (folder / weights.WHOLE).is_file():
        return folder
    folder = fetch(weights.INDEX)
    return fetch(*weights.shards(folder, source.name))


def _class_as_saved(config: PreTrainedConfig) -> Any:
    """The class that a checkpoint was saved as, stock or placed; `None` where there is none of that name."""
    if config.model_type.startswith("placed_"):
        return saved_class(HOSTS[config.model_type.removeprefix("placed_")], config)
    return getattr(transformers, (config.architectures or [""])[0], None)


def tokenizer_of(source: Source, *, say: Say = silent) -> PreTrainedTokenizerBase:
    """The model's own tokenizer.

    :raises DataError: if it has none, or one with more tokens than the model's embedding.
    """
    prepare(source, say=say)
    remedy = "put tokenizer.json and tokenizer_config.json beside its config.json"
    missing = f"model {source.name} has no tokenizer: its files are missing; {remedy}"
    check_normalizer(source.path)
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(source.path, **stored_at(source), trust_remote_code=False)
            check_normalizer(source.name, tokenizer)
            tokenizer.encode("A word.")  # settings of a wrong type show when they are used
    except DataError:
        raise
    except Exception as error:  # transformers raises OSError, ValueError and others for the same mistake
        folder = Path(source.path)
        if folder.is_dir() and not any(
            found
            for pattern in ("*token*", "*vocab*", "*.model", "*tekken*", "*.spm", "merges.txt")
            for found in folder.glob(pattern)
        ):
            raise DataError(missing) from error
        raise DataError(
            f"model {source.name} has no tokenizer that can be loaded: {_reason(error)}; {remedy}"
        ) from error
    if len(tokenizer) <= len(tokenizer.all_special_tokens):  # what transformers makes up where the files are missing
        raise DataError(missing)
    size = source.config.vocab_size
    if max(tokenizer.get_vocab().values()) >= size:
        raise DataError(
            f"model {source.name}: its tokenizer has {len(tokenizer):,} tokens, its embedding only {size:,}; {remedy} that fit"
        )
    return tokenizer


def image_processor_of(source: Source) -> Any:
    """The model's own image processor.

    :raises DataError: if it has none.
    """
    try:
        with quiet():
            return AutoImageProcessor.from_pretrained(source.path, **stored_at(source), trust_remote_code=False)
    except Exception as error:
        raise DataError(
            f"model {source.name} has no image processor that can be loaded: {_reason(error)}; "
            "put preprocessor_config.json beside its config.json"
        ) from error


def device() -> str:
    """Where models run: a CUDA GPU, else Apple's, else the processor."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _local(name: str) -> Path:
    return Path(os.path.expanduser(name))  # unlike Path.expanduser, it leaves a home that does not exist as it is


def _in_folder(name: str, folder: Path, cache: Path) -> Source:
    if not (folder / "config.json").is_file():
        found = sorted(folder.glob("*.gguf"))
        if len(found) == 1:
            return _in_gguf(name, found[0], cache)
        if found:
            raise CheckpointError(f"model {name} holds several GGUF files; {_ggufs(folder)}")
        if (folder / ADAPTER).is_file():
            raise CheckpointError(
                f"model {name} is a folder with an adapter and no model; merge it into its model (PEFT's merge_and_unload), "
                "and name what that saves"
            )
        if (folder / "model" / "config.json").is_file():
            raise CheckpointError(f"model {name} is a folder without config.json; did you mean {Path(name) / 'model'}?")
        raise CheckpointError(f"model {name} is a folder without config.json; {KINDS}")
    files = {path.name for path in folder.iterdir()}
    if odd := [
        path.name for path in sorted(folder.iterdir()) if path.exists() and not (path.is_file() or path.is_dir())
    ]:
        raise CheckpointError(
            f"model {name} holds {odd[0]}, which is a pipe or a device and no file, and would be read without end; remove it"
        )
    config = _config(name, str(folder))
    place = folder.absolute()
    of_training = re.fullmatch(r"checkpoint-\d+", place.name)
    title = f"{place.parent.name}/{place.name}" if of_training or place.name in NAMELESS else place.name
    return _source(name, title, str(folder), config, files)


def _on_hub(name: str, cache: Path) -> Source:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    try:
        # One question, so that a name that is wrong or a network that is down costs no retries.
        found = HfApi().model_info(name, timeout=HUB_SECONDS)
        files = {file.rfilename for file in found.siblings or ()}
    except HFValidationError as error:
        raise CheckpointError(f"model {name!r} does not exist and can be no hub id; {KINDS}") from error
    except RepositoryNotFoundError as error:
        raise CheckpointError(
            f"model {name!r} is no local path, and the hub has no such public model; check the name, log in with "
            f"`hf auth login` if it is private, or {KINDS}"
        ) from error
    except Exception as error:  # no network, no answer, offline mode: then what was fetched before will do
        try:
            with quiet():
                folder = Path(snapshot_download(name, local_files_only=True))
        except Exception:
            raise CheckpointError(
                f"model {name!r} is no local path, and the hub did not give it: {_reason(error)}; "
                f"check the name and the network, or {KINDS}"
            ) from error
        source = _in_folder(name, folder, cache)
        return replace(source, title=name.rpartition("/")[2])
    if "config.json" not in files:
        ggufs = sorted(file for file in files if file.endswith(".gguf"))
        remedy = f"name one of its GGUF files, for example {name}:{ggufs[0]}" if ggufs else KINDS
        raise CheckpointError(f"model {name} on the hub has no config.json; {remedy}")
    config = _config(name, name, **({"revision": found.sha} if found.sha else {}))
    return replace(_source(name, name.rpartition("/")[2], name, config, files), revision=found.sha or "")


def _download(name: str, repository: str, file: str, say: Say) -> Path:
    from huggingface_hub import HfApi, hf_hub_download, try_to_load_from_cache

    try:
        if isinstance(present := try_to_load_from_cache(repository, file), str):
            return Path(present)
        HfApi().model_info(repository, timeout=HUB_SECONDS)  # answers at once where the download would retry
        say(f"{file}: fetching from the hub, once")
        return Path(hf_hub_download(repository, file))
    except Exception as error:  # the hub client raises many kinds: no network, no such model or file, no permission
        raise CheckpointError(
            f"model {name!r}: {repository} is no folder, and the hub did not give {file}: {_reason(error)}; "
            "check the name and the network"
        ) from error


def _in_gguf(name: str, file: Path, cache: Path) -> Source:
    if not is_gguf_available():
        raise CheckpointError(f'model {name} needs the package gguf to be read; run pip install "mixln[gguf]"')
    with file.open("rb") as content:
        if content.read(4) != b"GGUF":
            raise CheckpointError(f"model {name} is no GGUF file: it does not begin with the letters GGUF; {KINDS}")
        content.seek(0)
        key = hashlib.file_digest(content, "sha256").hexdigest()[:20]
    if not (place := existing(cache)).is_dir():
        raise StoreError(f"cache {cache} cannot be made: {place} is a file; name another folder with --cache")
    converted = cache / "gguf" / f"{key}-{GGUF_FORMAT}"
    if (converted / "config.json").is_file():
        config = _config(name, str(converted))
    else:
        gguf_header.check(name, file)
        config = _config(name, str(file.parent), gguf_file=file.name)
        if not config.architectures and type(config) in MODEL_FOR_CAUSAL_LM_MAPPING:
            config.architectures = [_names(MODEL_FOR_CAUSAL_LM_MAPPING, config)[0]]
    source = _source(name, file.stem, str(converted), config, WEIGHTS)
    if source.task != "causal-lm":
        raise CheckpointError(f"model {name} is a GGUF file of {config.model_type!r}, which is no decoder; {KINDS}")
    return replace(source, gguf=file)


def _ggufs(folder: Path) -> str:
    """The remedy for a GGUF file that was not named, or not rightly."""
    found = sorted(path.name for path in folder.glob("*.gguf"))
    return f"name one as {folder}:{found[0]}; it holds {', '.join(found)}" if found else KINDS


def _config(name: str, path: str, **where: str) -> PreTrainedConfig:
    """Reads a config; code that comes with a model is not run, and nothing is asked at the terminal."""
    try:
        with quiet():
            configs.check_file(Path(path) / "config.json")
            entries, _ = PreTrainedConfig.get_config_dict(path, **where)
            return configs.config_of(entries)
    except configs.UnknownFamily as error:
        raise CheckpointError(
            f"model {name} has the model_type {error.family!r} in its config, which transformers {version('transformers')} does not "
            f"have (code that comes with a model is not run); {KINDS}"
        ) from error
    except Exception as error:  # transformers raises many kinds here, its own validation errors among them
        raise CheckpointError(
            f"model {name}: its config cannot be read: {_reason(error)}; mend it, or {KINDS}"
        ) from error


def _source(name: str, title: str, path: str, config: PreTrainedConfig, files: Collection[str]) -> Source:
    """What is at `path`, if it can be diagnosed.

    :param files: names of the files there.
    """
    if config.is_encoder_decoder:
        raise CheckpointError(
            f"model {name} is an encoder-decoder ({config.model_type}); name a model that is one stack of layers"
        )
    if parts := [part for part in config.sub_configs if part.startswith(PARTS)]:
        raise CheckpointError(
            f"model {name} ({config.model_type}) is put together of several models ({', '.join(parts)}); "
            "name one that is one stack of layers"
        )
    refuse_pieces(name, files)
    if ADAPTER in files:
        raise CheckpointError(
            f"model {name} has an adapter beside its weights ({ADAPTER}), which transformers would apply to them; if it has been merged "
            "into them, move the adapter_* files elsewhere, or else merge it first (PEFT's merge_and_unload)"
        )
    if not any(file in files for file in (*WEIGHTS, *PICKLES)):
        raise CheckpointError(f"model {name} has a config.json but no weights; it needs {WEIGHTS[0]}")
    pickled = not any(file in files for file in WEIGHTS)
    return Source(name=name, title=title, path=path, task=_task(name, config), config=config, pickled=pickled)


def refuse_pickle(source: Source) -> None:
    """:raises CheckpointError: if the weights are there as a pickle only, which can hide code."""
    if source.pickled:
        raise CheckpointError(
            f"model {source.name} has its weights as a pickle only ({PICKLES[0]}), which can run code when it is read; "
            f"name a copy with {WEIGHTS[0]}, or write one with save_pretrained where you trust it"
        )


def _task(name: str, config: PreTrainedConfig) -> Task:
    architecture = (config.architectures or [""])[0]
    for task, (mapping, _) in HEADS.items():
        if type(config) in mapping and architecture in _names(mapping, config):
            return "masked-lm" if task == "causal-lm" and _sees_both_ways(config) else task
    if architecture in PRETRAINED_ON_MASKS and type(config) in MODEL_FOR_MASKED_LM_MAPPING:
        return "masked-lm"
    if type(config) in MODEL_MAPPING:
        return "none"
    raise CheckpointError(f"model {name}: transformers has no class for {config.model_type!r} without a head; {KINDS}")


def _sees_both_ways(config: PreTrainedConfig) -> bool:
    """Whether it is a placed decoder without a causal mask, which `mixln compare --task masked-lm` trains."""
    return configs.is_placed(config) and getattr(config, "is_causal", True) is False


def _names(mapping: Any, config: PreTrainedConfig) -> list[str]:
    classes = mapping[type(config)]
    return [each.__name__ for each in (classes if isinstance(classes, tuple) else (classes,))]


def refuse_incomplete(source: Source, info: dict[str, Any]) -> None:
    """:raises CheckpointError: if the loaded model has a weight that the checkpoint did not give."""
    missing = [key for key in info["missing_keys"] if source.task != "none" or not key.startswith("pooler.")]
    misshapen = [key if isinstance(key, str) else key[0] for key in info["mismatched_keys"]]
    for what, keys in (("missing", missing), ("misshapen", misshapen)):
        if keys:
            raise CheckpointError(
                f"model {source.name} cannot be loaded whole: weight {min(keys)} is {what}"
                f"{f', and {len(keys) - 1} more' if len(keys) > 1 else ''}; its config and its weights do not belong together"
            )


def _reason(error: BaseException) -> str:
    return first_line(error.__cause__ or error)
