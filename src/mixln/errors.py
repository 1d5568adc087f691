"""Errors that `mixln` explains to the user.

    MixlnError (ValueError)
    ├── SettingsError     invalid setting or combination of settings
    │   └── PlacementError    unknown placement, or one that does not fit the model
    ├── DataError         data that cannot be read or is too short
    ├── StoreError        folder that holds another experiment, or a full disk
    ├── CheckpointError   model that cannot be found or loaded, or has corrupt weights
    └── RecordError       stored entry that is missing or has another type than its field
        └── UnknownEntry      stored entry that the record does not have: from a newer version, or misspelt

Each message is one line with the field, the rule, the value and the remedy. The command line prints it and exits with status 2.
"""

from difflib import get_close_matches


class MixlnError(ValueError):
    """Base class of all errors that the user can fix."""


class SettingsError(MixlnError):
    """An invalid setting or combination of settings."""


class PlacementError(SettingsError):
    """An unknown placement, or one that does not fit the model."""


class DataError(MixlnError):
    """Data that cannot be read, or is too short to train on."""


class StoreError(MixlnError):
    """A folder that holds another experiment, or a disk without room for this one."""


class CheckpointError(MixlnError):
    """A model that cannot be found or loaded, does not match its config or placement, or has corrupt weights."""


class RecordError(MixlnError):
    """An entry of a stored record that is missing or has another type than its field.

    :param rule: message without its subject, for example `must be a list`.
    :param path: path of the entry, for example `.layers[0].attention`.
    """

    def __init__(self, rule: str, path: str = "") -> None:
        super().__init__(rule)
        self.rule, self.path = rule, path

    def __str__(self) -> str:
        return f"{self.path.lstrip('.') or 'it'} {self.rule}"


class UnknownEntry(RecordError):
    """An entry that the record does not have: from a newer version, or misspelt."""


class Stopped(Exception):
    """The job was stopped by SIGTERM or SIGINT, the first argument, and can be resumed.

    Its state was saved first; if that took too long, a second argument says so.
    """


class PlacementWarning(UserWarning):
    """A known problem of a placement with its initialisation at this depth."""


def unknown(field: str, value: str, known: object) -> str:
    """Error message for an unknown name: `field 'value' is not known; did you mean a? known: a, b, c`."""
    names = {str(name).lower(): str(name) for name in known}  # type: ignore[attr-defined]
    close = get_close_matches(value.lower(), names, n=1, cutoff=0.8)
    meant = f"did you mean {names[close[0]]}? " if close else ""
    return f"{field} {value!r} is not known; {meant}known: {', '.join(names.values())}"


def first_line(error: BaseException) -> str:
    """First line of an error's message, for use in a one-line message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
