"""The models of a diagnosis for the charts, each with the key of its style."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from mixln.diagnostics.results import Diagnosis
from mixln.report import names as naming


@dataclass(frozen=True, kw_only=True)
class Model:
    """One model.

    :param key: index of its name in :attr:`Models.names`, which determines its style.
    """

    key: int
    name: str
    diagnosis: Diagnosis


@dataclass(frozen=True, kw_only=True)
class Models:
    """All models of a report.

    :param names: names of the models with a diagnosis, and of others in the same legend.
    """

    names: tuple[str, ...]
    members: tuple[Model, ...]

    def __iter__(self) -> Iterator[Model]:
        return iter(self.members)

    def where(self, known: Callable[[Diagnosis], object]) -> tuple[Model, ...]:
        """The models for which `known` returns a true value."""
        return tuple(model for model in self.members if known(model.diagnosis))

    @property
    def layers(self) -> int:
        """The largest number of layers."""
        return max((model.diagnosis.layers for model in self.members), default=1)


def models_of(diagnoses: Sequence[Diagnosis], names: Sequence[str] = ()) -> Models:
    """The models, in the order of the diagnoses.

    :param names: names in another legend of the page: a model with such a name gets the same key.
    """
    known = list(names)
    members = []
    for name, diagnosis in zip(naming.models(diagnoses), diagnoses, strict=True):
        if name not in known:
            known.append(name)
        members.append(Model(key=known.index(name), name=name, diagnosis=diagnosis))
    return Models(names=tuple(known), members=tuple(members))
