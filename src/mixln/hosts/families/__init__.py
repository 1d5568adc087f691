"""One file a host family, each with its record `HOST`. All of them are found by themselves."""

from __future__ import annotations

import pkgutil
from importlib import import_module

from mixln.hosts.factory import placed_classes
from mixln.hosts.family import Host


def _all() -> dict[str, Host]:
    """Model type → host; the placed classes of each are made, registered, and put into its module."""
    hosts = {}
    for found in pkgutil.iter_modules(__path__):
        module = import_module(f"{__name__}.{found.name}")
        vars(module).update(placed_classes(module.HOST, module.__name__))
        hosts[module.HOST.model_type] = module.HOST
    return hosts


HOSTS: dict[str, Host] = _all()
