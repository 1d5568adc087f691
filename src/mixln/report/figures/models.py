"""The models of a diagnosis as the charts know them: each with the key that fixes its colour, marker and dash."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from mixln.diagnostics.results import Diagnosis
from mixln.report import names as naming


@dataclass(frozen=True, kw_only=True)
class Model:
    """One model.

    :param key: the index of its name among those of all.
    """

    key: int
    name: str
    diagnosis: Diagnosis


@dataclass(frozen=True, kw_only=True)
class Models:
    """All models that a report shows.

    :param names: of the models with a diagnosis, and of those without that share a legend with them.
    """

    names: tuple[str, ...]
    members: tuple[Model, ...]

    def __iter__(self) -> Iterator[Model]:
        return iter(self.members)

    def where(self, known: Callable[[Diagnosis], object]) -> tuple[Model, ...]:
        """Those of which something is known."""
        return tuple(model for model in self.members if known(model.diagnosis))

    @property
    def layers(self) -> int:
        """The largest number of layers."""
        return max((model.diagnosis.layers for model in self.members), default=1)


def models_of(diagnoses: Sequence[Diagnosis], names: Sequence[str] = ()) -> Models:
    """The models in their order.

    :param names: the names of a legend that stands on the same page: a model of that name gets its key.
    """
    known = list(names)
    members = []
    for name, diagnosis in zip(naming.models(diagnoses), diagnoses, strict=True):
        if name not in known:
            known.append(name)
        members.append(Model(key=known.index(name), name=name, diagnosis=diagnosis))
    return Models(names=tuple(known), members=tuple(members))
