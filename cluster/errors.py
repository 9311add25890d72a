"""What can go wrong at the cluster, sorted by what to do about it: try later, or it will not help.

Two kinds are enough for the engine (learned from kopf). `KubeConflictError` is neither: it says that what was read is
stale, and the answer is to read again.
"""


class KubeError(Exception):
    """An answer of the API server, or the lack of one.

    Attributes:
        status: HTTP status, 0 when there was no answer.
        reason: the `reason` of the Kubernetes Status object, when there is one.
    """

    def __init__(self, message: str, *, status: int = 0, reason: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.reason = reason


class KubeTransientError(KubeError):
    """Try later: unreachable, overloaded, timed out, or not set up yet.

    `unreachable` tells that no answer came at all (refused, no route, timed out), as opposed to a 5xx.
    """

    def __init__(self, message: str, *, status: int = 0, reason: str = "", unreachable: bool = False) -> None:
        super().__init__(message, status=status, reason=reason)
        self.unreachable = unreachable


class KubeRefusedError(KubeError):
    """Trying again will not help: schema, admission, permissions."""


class KubeConflictError(KubeError):
    """409: a precondition (uid, resourceVersion) failed, or another manager owns the field."""


class KubeGoneError(KubeError):
    """410: the resourceVersion or continue token is too old; list anew."""
