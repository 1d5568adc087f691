"""The mistakes that `mixln` explains to its user.

    MixlnError (ValueError)
    ├── SettingsError     a setting, or a combination of settings, that cannot work
    │   └── PlacementError    a placement that does not exist or does not fit the model
    ├── DataError         text that cannot be read or is too short
    ├── StoreError        a folder that holds another experiment, or has no room
    ├── CheckpointError   a model that cannot be found or loaded, or whose weights are damaged
    └── RecordError       an entry of a JSON file that is missing or has another type than its field
        └── UnknownEntry      an entry that the record does not have: of a newer version, or misspelt

Each message is one line that gives the field, the rule, the value and the remedy. The command line prints it and exits with 2.
"""

from difflib import get_close_matches


class MixlnError(ValueError):
    """Root of every error that the user can mend."""


class SettingsError(MixlnError):
    """A setting, or a combination of settings, that cannot work."""


class PlacementError(SettingsError):
    """A placement that does not exist or does not fit the model."""


class DataError(MixlnError):
    """Text that cannot be read, or is too short to train on."""


class StoreError(MixlnError):
    """A folder that holds another experiment, or a disk without room for this one."""


class CheckpointError(MixlnError):
    """A model that cannot be found or loaded, does not fit its own config or placement, or whose weights are damaged."""


class RecordError(MixlnError):
    """An entry of a stored record that is missing or has another type than its field.

    :param rule: the rest of the sentence that begins with the path.
    :param path: of the entry, for example `.layers[0].attention`.
    """

    def __init__(self, rule: str, path: str = "") -> None:
        super().__init__(rule)
        self.rule, self.path = rule, path

    def __str__(self) -> str:
        return f"{self.path.lstrip('.') or 'it'} {self.rule}"


class UnknownEntry(RecordError):
    """An entry that a record does not have: a newer version has it, or its name is misspelt."""


class Stopped(Exception):
    """The work was ended because the process was sent SIGTERM or SIGINT, the first argument; it can go on later.

    It was saved before; where that took too long, a second argument says so.
    """


class PlacementWarning(UserWarning):
    """What is known against a placement with its init, on a model of this depth."""


def unknown(field: str, value: str, known: object) -> str:
    """The message for a name that is not in a list: `field 'value' is not known; did you mean a? known: a, b, c`."""
    names = {str(name).lower(): str(name) for name in known}  # type: ignore[attr-defined]
    close = get_close_matches(value.lower(), names, n=1, cutoff=0.8)
    meant = f"did you mean {names[close[0]]}? " if close else ""
    return f"{field} {value!r} is not known; {meant}known: {', '.join(names.values())}"


def first_line(error: BaseException) -> str:
    """The first line of an error's text, for a message of one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
