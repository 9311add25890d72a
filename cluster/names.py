"""Names of objects that are kept both as a row and as a custom resource."""

import re

PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
# They are collections of their own under each kind's in the API.
RESERVED = frozenset({"drift", "repair"})


def check_name(name: str, maximum: int) -> None:
    """Raises ValueError unless the API would take `name` for a new object; `maximum` is its length in characters."""
    if len(name) > maximum or not re.match(PATTERN, name):
        raise ValueError(f"the name has to be a DNS label of at most {maximum} characters")
    if name in RESERVED:
        raise ValueError(f"the name {name} is reserved")
