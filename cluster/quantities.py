"""Kubernetes quantities as numbers. Pure.

https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
"""

import re
from decimal import Decimal

_QUANTITY = re.compile(r"\+?([0-9]+(?:\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][-+]?[0-9]{1,3})?")
_POWERS = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}
# What no cluster has, and what would make a number of a thousand digits.
MOST = Decimal(10) ** 30


def parse_quantity(text: object) -> Decimal:
    """The number that a quantity stands for: `500m` is 0.5, `2Gi` is 2147483648.

    Raises:
        ValueError: it is no quantity, is negative, or is beyond anything a cluster could have.
    """
    match = _QUANTITY.fullmatch(str(text))
    if match is None or isinstance(text, bool):
        raise ValueError("Has to be a Kubernetes quantity, such as 500m or 2Gi.")
    number, suffix = Decimal(match[1]), match[2] or ""
    if suffix in _BINARY:
        number *= Decimal(1024) ** _BINARY[suffix]
    elif suffix:
        number = number.scaleb(_POWERS[suffix] if suffix in _POWERS else int(suffix[1:]))
    if number > MOST:
        raise ValueError("Is more than any cluster has.")
    return number
