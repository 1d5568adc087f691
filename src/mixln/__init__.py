"""mixln: any normalization placement on a Hugging Face transformer, compared on equal terms.

    import mixln
    model = mixln.from_config(LlamaConfig(...), placement="mix(0.25)")
    model.save_pretrained("folder")
    model = mixln.from_pretrained("folder")        # or AutoModelForCausalLM.from_pretrained("folder")

Importing mixln registers the placed models with the `Auto*` classes of transformers and the tables of PEFT and other libraries.
It imports neither torch nor transformers, so that the command line starts quickly; modules that need them load on first use.
"""

import logging
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from mixln import _libraries
from mixln._register import when_imported
from mixln.errors import (
    CheckpointError,
    DataError,
    MixlnError,
    PlacementError,
    PlacementWarning,
    SettingsError,
    StoreError,
)
from mixln.placement import Placement, placement

if TYPE_CHECKING:
    from mixln.hosts import from_config, from_pretrained, placed_config
    from mixln.hosts.convert import place, unplace
    from mixln.nn.profiling import profile
    from mixln.nn.ramp import set_step
    from mixln.nn.step_callback import StepCallback

try:
    __version__ = version("mixln")
except PackageNotFoundError:  # a checkout on the path, as on a cluster's node where nothing can be installed
    __version__ = "0"
logging.getLogger("mixln").addHandler(logging.NullHandler())  # silent unless the application configures logging

_LAZY = dict.fromkeys(("from_config", "from_pretrained", "placed_config"), "mixln.hosts") | {
    "place": "mixln.hosts.convert",
    "StepCallback": "mixln.nn.step_callback",
    "profile": "mixln.nn.profiling",
    "set_step": "mixln.nn.ramp",
    "unplace": "mixln.hosts.convert",
}

__all__ = [
    "CheckpointError",
    "DataError",
    "MixlnError",
    "Placement",
    "PlacementError",
    "PlacementWarning",
    "SettingsError",
    "StepCallback",
    "StoreError",
    "from_config",
    "from_pretrained",
    "place",
    "placed_config",
    "placement",
    "profile",
    "set_step",
    "unplace",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'mixln' has no attribute {name!r}")


_libraries.register()
when_imported("transformers", lambda: import_module("mixln.hosts"))
