"""Who did something: carried from the edge (API, console, CLI, task) through services into the audit trail."""

from dataclasses import asdict, dataclass
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asked for a change, and by which request.

    Attributes:
        kind: `user` (a person), `token` (an access token), `pod` (a tenant's ServiceAccount) or `system`.
        name: what the audit trail shows; copied, so that it outlives the account.
        user_id: primary key of the account, when there is one.
        request_id: the X-Request-ID that the change came with, if it came by a request.
        address: the caller's network address, if it came by a request.
        token: the label of the access token that it came with, if it came with one.
    """

    kind: str
    name: str
    user_id: int | None = None
    request_id: str = ""
    address: str = ""
    token: str = ""

    def as_json(self) -> dict[str, Any]:
        """A dictionary of JSON values, for revisions and jobs that outlive the request."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        return cls(**value)


SYSTEM = Actor(kind="system", name="system")
