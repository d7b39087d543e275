"""The exceptions that prefrestore raises on purpose; each message is one sentence that names the file or argument."""


class PrefRestoreError(Exception):
    """Base of every error that prefrestore raises for bad input; the command line prints it and goes on."""


class ImageReadError(PrefRestoreError):
    """A file is not an image, is truncated, is too large to open safely, or cannot be read."""


class ImageWriteError(PrefRestoreError):
    """An output cannot be written: no permission, no space, or a format that cannot hold the picture."""


class WeightsError(PrefRestoreError):
    """A weight file is missing, corrupt, or does not match its recorded hash or its configuration."""


class InvalidInputError(PrefRestoreError, ValueError):
    """An argument or a configuration is outside what the called function accepts."""


class MissingDependencyError(PrefRestoreError, ImportError):
    """An optional package is needed for what was asked; the message says how to install it."""
