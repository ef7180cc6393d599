"""The one tree of errors that a user may see.

A message names what was wrong, the offending value, where it came from and what to do. The command line prints it
without a traceback and exits with the class's `exit_code`.
"""


class TRFMoEError(Exception):
    """Base of every error that this project raises on purpose."""

    exit_code = 1


class ConfigError(TRFMoEError):
    """A recipe, an override or a node's settings cannot be used."""

    exit_code = 2


class DataError(TRFMoEError):
    """A source of text, a tokenizer or a token shard cannot be used."""

    exit_code = 2


class RunFolderError(TRFMoEError):
    """A run folder cannot be created, is in use, or does not hold what it should."""

    exit_code = 2


class PathError(TRFMoEError):
    """A name would lead to a place outside of the folder that it belongs in."""

    exit_code = 2


class WireError(TRFMoEError):
    """A parcel or a message is not what it says it is."""


class PlacementError(TRFMoEError):
    """Experts cannot be placed on the nodes at hand."""


class RunError(TRFMoEError):
    """A run was started and could not be finished."""


class MachineError(RunError):
    """This machine lacks something: a program, a package, a folder, a right, or room on the disk."""

    exit_code = 3
