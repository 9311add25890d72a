"""What a cluster tenant's fields may hold. The API's serializers and repair go by the same rules. Pure."""

import re
from typing import Any

from cluster.kinds import Spec
from cluster.quantities import parse_quantity
from tenants.models import ClusterTenant

NAME_MAX = 53
DISPLAY_NAME_MAX = 200
DOMAIN_MAX = 253
# Lower-case labels of at most 63 characters; names in other scripts in their xn-- form (RFC 5890).
DOMAIN_PATTERN = r"^([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\.)*[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"
POOL_MAX = 63
POOL_PATTERN = r"^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"
COUNT_MAX = 2**31 - 1
MODES = ("shared", "dedicated")
QUANTITIES = ("cpu", "memory", "storage")
COUNTS = ("pods", "gpu")


def checked_spec(spec: Spec) -> Spec:
    """The fields of a custom resource's spec that a cluster tenant's row can hold.

    Raises:
        ValueError: one of them breaks a rule; the sentence names it.
    """
    shown = spec.get("displayName")
    if not isinstance(shown, str) or not shown.strip() or len(shown) > DISPLAY_NAME_MAX or "\x00" in shown:
        raise ValueError(f"displayName has to be text of 1 to {DISPLAY_NAME_MAX} characters")
    out: Spec = {"displayName": shown, "isolationTier": spec.get("isolationTier")}
    if out["isolationTier"] not in ClusterTenant.IsolationTier.values:
        raise ValueError(f"isolationTier has to be one of {', '.join(ClusterTenant.IsolationTier.values)}")
    if domain := spec.get("baseDomain"):
        if not isinstance(domain, str) or len(domain) > DOMAIN_MAX or not re.match(DOMAIN_PATTERN, domain):
            raise ValueError("baseDomain has to be a lower-case domain")
        out["baseDomain"] = domain
    if (compute := spec.get("compute")) is not None:
        out["compute"] = _compute(compute)
    if (resources := spec.get("resources")) is not None:
        out["resources"] = {"quota": _quota(resources)} if "quota" in resources else {}
    return out


def _compute(value: Any) -> Any:
    if not isinstance(value, dict) or value.get("mode") not in MODES or not set(value) <= {"mode", "nodePool"}:
        raise ValueError("compute has to be an object with a mode, shared or dedicated, and a nodePool")
    pool = value.get("nodePool")
    if pool is None and value["mode"] == "dedicated":
        raise ValueError("compute.nodePool is missing, and mode dedicated needs one")
    if pool is not None and not (isinstance(pool, str) and len(pool) <= POOL_MAX and re.match(POOL_PATTERN, pool)):
        raise ValueError("compute.nodePool has to be a label value")
    return value


def _quota(resources: Any) -> Any:
    if not isinstance(resources, dict) or not isinstance(resources["quota"], dict) or len(resources) > 1:
        raise ValueError("resources has to be an object with a quota")
    quota = resources["quota"]
    if not set(quota) <= {*QUANTITIES, *COUNTS}:
        raise ValueError(f"resources.quota may hold {', '.join((*QUANTITIES, *COUNTS))} alone")
    for name, value in quota.items():
        if name in QUANTITIES:
            parse_quantity(value)
        elif isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= COUNT_MAX:
            raise ValueError(f"resources.quota.{name} has to be a whole number")
    return quota
