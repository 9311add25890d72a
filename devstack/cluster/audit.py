"""The audit log: who asked for what, a JSON object a line, at the level Metadata of a real API server's.

https://kubernetes.io/docs/tasks/debug/debug-cluster/audit/
"""

from __future__ import annotations

from pathlib import Path

import orjson

from devstack.cluster import rbac
from devstack.cluster.tokens import User
from devstack.cluster.writes import timestamp


class AuditLog:
    """Appends to a file; without one, keeps nothing."""

    def __init__(self, path: Path | None) -> None:
        self._file = path.open("ab", buffering=0) if path is not None else None

    def write(self, user: User, version: str, asked: rbac.Request, code: int) -> None:
        """Note a request that was answered with `code`; a watch as soon as it has begun."""
        if self._file is None:
            return
        plural, _, subresource = asked.resource.partition("/")
        about = {"resource": plural, "apiVersion": version, "apiGroup": asked.group, "subresource": subresource}
        about |= {"namespace": asked.namespace, "name": asked.name}
        event = {
            "kind": "Event",
            "apiVersion": "audit.k8s.io/v1",
            "level": "Metadata",
            "stageTimestamp": timestamp(),
            "verb": asked.verb,
            "user": user.as_dict(),
            "objectRef": {key: value for key, value in about.items() if value},
            "responseStatus": {"code": code},
        }
        self._file.write(orjson.dumps(event, option=orjson.OPT_APPEND_NEWLINE))
