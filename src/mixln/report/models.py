"""The models of a diagnosis as the charts know them: each with the key that fixes its colour, marker and dash."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from mixln.diagnostics.results import Diagnosis
from mixln.report import formats, series
from mixln.runs.profile import Profile


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
    for name, diagnosis in zip(labels(diagnoses), diagnoses, strict=True):
        if name not in known:
            known.append(name)
        members.append(Model(key=known.index(name), name=name, diagnosis=diagnosis))
    return Models(names=tuple(known), members=tuple(members))


def labels(diagnoses: Sequence[Diagnosis]) -> tuple[str, ...]:
    """The models' names without what does not print, cut where they stay different."""
    full = [formats.plain(diagnosis.model) for diagnosis in diagnoses]
    cut = Counter(map(series.short, full))
    return tuple(name if cut[series.short(name)] > 1 else series.short(name) for name in full)


def summed(profile: Profile) -> tuple[float, ...]:
    """One figure a layer: the sum over its branches, or that of the layer where its branches are not known."""
    if not profile.attention:
        return profile.feed_forward
    return tuple(a + f for a, f in zip(profile.attention, profile.feed_forward, strict=True))
