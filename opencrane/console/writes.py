"""What the console says after a write to something the cluster has to follow."""

from collections.abc import Callable

from django.contrib import messages
from django.http import HttpRequest

from cluster.wait import Write
from opencrane.errors import InvalidError, PreconditionFailedError, TimedOutError

# A person looks at the page meanwhile; what takes longer goes on in the background and shows as waiting.
WAIT_SECONDS = 4.0


def settle(request: HttpRequest, write: Write, done: str) -> bool:
    """Give the cluster a few seconds, and say honestly how far it came. Returns whether it confirmed.

    Raises:
        ClusterRejectedError, ConflictError: the cluster refused; the write was taken back.
    """
    try:
        write.wait(WAIT_SECONDS)
    except TimedOutError:
        messages.warning(request, "Saved and queued; waiting for the cluster. This page follows its progress.")
        return False
    messages.success(request, done)
    return True


def same_generation(request: HttpRequest) -> Callable[[int], None]:
    """A precondition for services: the object still is what the form was made from (its field `generation`).

    Raises:
        InvalidError: the form has no such field.
    """
    seen = request.POST.get("generation", "")
    if not (seen.isascii() and seen.isdigit()):
        raise InvalidError(fields={"generation": ["Is missing from the form; open the page again."]})

    def check(generation: int) -> None:
        if generation != int(seen[:20]):
            raise PreconditionFailedError(
                "Somebody else changed it after you opened this page; nothing was saved.",
                detail=f"You saw generation {seen}, it is now at {generation}. Open it again and repeat your change.",
            )

    return check
