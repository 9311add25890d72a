"""The skill catalog with many bundles, what a scan takes, and what a worker holds while it scans the largest."""

import base64
import http.client
import itertools
import json
import random
import time
from typing import TYPE_CHECKING, Any

from django.db import connection
from django.utils import timezone

from bench import machine
from bench.client import Samples
from bench.figures import Wanted
from policies.models import Grant, Group
from skills import rules
from skills.models import SkillBundle

if TYPE_CHECKING:
    from bench.scenarios import Bench

API = "/api/v1/skills/catalog"
BUNDLES, GRANTS_EACH = 2_000, 3
SCANNED_BYTES, LARGEST_BYTES, LARGEST = 200_000, rules.CONTENT_MAX_BYTES, 3
_WORDS = (
    "the", "skill", "reads", "a", "file", "and", "sums", "up", "what", "it", "found", "in", "each", "table", "key",
    "value", "token", "http", "www", "example", "com",
)  # fmt: skip


def measure(bench: "Bench") -> None:
    """The list of 2,000 bundles with grants, scans from upload to verdict, and the workers' memory."""
    if not bench.wants("bundles", "scan"):
        return
    chance = random.Random(7)  # noqa: S311 - the same figures each time
    groups = Group.objects.bulk_create(Group(name=f"skills-{number}") for number in range(50))
    bundles = SkillBundle.objects.bulk_create([_bundle(number) for number in range(BUNDLES)], batch_size=500)
    Grant.objects.bulk_create(
        Grant(
            payload_type=Grant.PayloadType.SKILL, payload_id=str(bundle.pk), subject_type=Grant.SubjectType.GROUP,
            group=chance.choice(groups), access=Grant.Access.ALLOW, scope="org", priority=priority,
        )
        for bundle in bundles
        for priority in range(GRANTS_EACH)
    )  # fmt: skip
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE policies_grant, policies_group, skills_skillbundle")
    bench.read(
        f"{BUNDLES:,} bundles, {GRANTS_EACH} grants each", API, headers=bench.authorization, most=200,
        wanted=Wanted(milliseconds=60),
    )  # fmt: skip
    bench.read("bundles, a page of 50", f"{API}?limit=50", headers=bench.authorization, most=2_000)
    numbers = itertools.count()
    bench.measure(
        f"scan of {SCANNED_BYTES // 1000} kB, upload to verdict", 1,
        lambda: _scans(bench, numbers, 5, _text(chance, SCANNED_BYTES)), wanted=Wanted(milliseconds=3_000),
    )  # fmt: skip
    bench.measure(
        f"scan of {LARGEST_BYTES >> 20} MiB, upload to verdict",
        1,
        lambda: _scans(bench, numbers, LARGEST, _text(chance, LARGEST_BYTES)),
    )
    bench.results.memory["jobs worker after scans of 10 MiB"] = machine.memory_mib(bench.pids, "jobs")


def _bundle(number: int) -> SkillBundle:
    content = f"---\nname: bench-{number}\ndescription: One of many.\n---\n{'Read it, and say so. ' * 50}".encode()
    return SkillBundle(
        name=f"bench-{number // 4}", version=f"1.{number % 4}.0", description="One of many.", scope="org",
        tags=["bench", f"t{number % 20}"], status="published", published_at=timezone.now(), content=content,
        content_size=len(content), digest=rules.digest_of(content), scan_status="passed", is_cleared=True,
    )  # fmt: skip


def _text(chance: random.Random, size: int) -> str:
    lines, length = [], 0
    while length < size - 200:
        line = " ".join(chance.choices(_WORDS, k=12))
        lines.append(line)
        length += len(line) + 1
    return "\n".join(lines)


def _scans(bench: "Bench", numbers: "itertools.count[int]", count: int, text: str) -> Samples:
    """Upload and wait for the verdict, one after the other."""
    samples = Samples()
    began = time.perf_counter()
    for _ in range(count):
        # No two alike.
        number = next(numbers)
        content = base64.b64encode(f"{number}\n{text}".encode()).decode()
        body = {"name": f"scanned-{number}", "version": "1.0.0", "scope": "org", "contentBase64": content}
        start = time.perf_counter()
        status, made = _call(bench, "POST", API, body)
        while status < 300 and made.get("scanStatus") not in {"passed", "failed"}:
            time.sleep(0.02)
            status, made = _call(bench, "GET", f"{API}/{made['id']}?content=false")
        samples.add(time.perf_counter() - start, status if made.get("scanStatus") == "passed" else 500, 0)
    samples.wall = time.perf_counter() - began
    return samples


def _call(bench: "Bench", method: str, path: str, body: Any = None) -> tuple[int, dict[str, Any]]:
    host, port = bench.target.address
    connection_ = http.client.HTTPConnection(host, port, timeout=120)
    try:
        headers = bench.authorization | {"Content-Type": "application/json"}
        connection_.request(method, path, None if body is None else json.dumps(body), headers)
        response = connection_.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection_.close()
