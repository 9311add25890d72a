"""The skill store: a backfill to a registry on this machine."""

import os
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

import orjson
from django.utils import timezone

from bench.client import Samples, ask
from bench.figures import Wanted

if TYPE_CHECKING:
    from bench.scenarios import Bench

BUNDLES = 300
# Of each bundle; what a longer SKILL.md has.
BYTES = 10_000
_BACKFILL = "/api/v1/skills/catalog/backfill"


def measure(bench: "Bench") -> None:
    """Published bundles pushed by a worker, each verified by reading it back."""
    if not bench.wants("backfill"):
        return
    if not os.environ.get("SKILL_OCI_REGISTRY_URL"):
        bench.results.notes.append("docker-registry is not installed: no backfill was measured.")
        return
    _seed()
    bench.measure("backfill, each bundle", 1, lambda: _run(bench), wanted=Wanted(rate=20))
    bench.measure("backfill of what is there, each bundle", 1, lambda: _run(bench))


def _seed() -> None:
    from skills.models import SkillBundle
    from skills.oci.artifact import digest_of

    rows = []
    for number in range(BUNDLES):
        content = f"# {number}\n".encode() + os.urandom(BYTES // 2).hex().encode()
        rows.append(
            SkillBundle(
                name=f"bench-{number:04d}", version="1.0.0", scope="org", status="published", scan_status="passed",
                is_cleared=True, published_at=timezone.now(), content=content, content_size=len(content),
                digest=digest_of(content),
            )
        )  # fmt: skip
    SkillBundle.objects.bulk_create(rows, batch_size=100)


def _run(bench: "Bench") -> Samples:
    """One backfill, by the times that its job notes; every bundle counts alike."""
    ask(bench.target, "POST", _BACKFILL)
    deadline = time.monotonic() + 300
    while True:
        job = _newest(bench)
        if job["status"] not in ("queued", "running"):
            break
        if time.monotonic() > deadline:
            raise RuntimeError("the backfill does not end")
        time.sleep(0.1)
    times = [datetime.fromisoformat(job[name]).timestamp() for name in ("startedAt", "finishedAt")]
    wall = times[1] - times[0]
    result: dict[str, Any] = job["result"]
    samples = Samples(wall=wall)
    for _ in range(result["total"]):
        samples.add(wall / result["total"], 200 if not result["failed"] else 500, 0)
    return samples


def _newest(bench: "Bench") -> dict[str, Any]:
    answer = ask(bench.target, "GET", "/api/v1/jobs?kind=skills.backfill&limit=1")
    found: list[dict[str, Any]] = orjson.loads(answer.body)
    return found[0]
