"""Errors a person can act on. The command line prints them as one line and exits with `exit_code`."""


def printable(name: object) -> str:
    """A name for a message or a terminal: control characters are escaped, so a file is always one line."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in str(name))


class UserError(Exception):
    """Something outside the program is wrong; the message names it and says what to do."""

    exit_code = 2


class SpecError(UserError, ValueError):
    """A value does not match its declared `Spec`; the message names the field, what came and what was expected."""


class DatasetError(UserError):
    """An episode file or dataset is missing, truncated or malformed."""


class CheckpointError(UserError):
    """A checkpoint is missing, damaged, or made for other specs."""


class ConfigurationError(UserError):
    """A required parameter is missing or out of range. Safety limits have no defaults."""


class RobotUnavailableError(UserError):
    """The robot, its simulator or a required node does not answer."""


class DeviceUnavailableError(UserError):
    """An input device (SpaceMouse, camera) is not there or cannot be opened."""
