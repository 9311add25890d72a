"""What a registry can do to us; every sentence is fit for callers and holds no secret."""


class RegistryError(Exception):
    """The registry did not do what it was asked."""

    def __init__(self, message: str) -> None:
        self.message = message
        super().__init__(message)


class RegistryUnavailableError(RegistryError):
    """It does not answer, or answers that it cannot now: it may go better later."""


class RegistryRefusedError(RegistryError):
    """It says no, or what it does is not allowed: trying again will not help until somebody changes something."""


class BlobNotFoundError(RegistryRefusedError):
    """It does not have what was asked for."""


class DigestMismatchError(RegistryRefusedError):
    """What it has, or says that it has, is not what its digest says."""
