"""One file per host family, each with its record `HOST`. Every file in this folder is loaded."""

from __future__ import annotations

import pkgutil
from importlib import import_module

from mixln.hosts.factory import placed_classes
from mixln.hosts.family import Host


def _all() -> dict[str, Host]:
    """Model type → host. Generates and registers the placed classes of each family and adds them to its module."""
    hosts = {}
    for file in pkgutil.iter_modules(__path__):
        module = import_module(f"{__name__}.{file.name}")
        # Pickle imports a class from the module that it names.
        vars(module).update(placed_classes(module.HOST, module.__name__))
        hosts[module.HOST.model_type] = module.HOST
    return hosts


HOSTS: dict[str, Host] = _all()
