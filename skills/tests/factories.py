"""Bundles for tests, saved without services: no scan, no audit."""

from typing import Any

from django.utils import timezone

from skills import rules
from skills.models import SkillBundle

SKILL = """---
name: {name}
description: Sums up what a table says.
---
# {name}

Read the table and say what stands out.
"""


def make_bundle(name: str = "summarize", version: str = "1.0.0", **values: Any) -> SkillBundle:
    """A draft whose scan has passed, unless `values` say otherwise."""
    content = values.pop("content", SKILL.format(name=name).encode())
    about: dict[str, Any] = {"content": content, "content_size": len(content), "digest": rules.digest_of(content)}
    state = {"scope": "org", "scan_status": "passed", "is_cleared": True, "scanned_at": timezone.now()}
    return SkillBundle.objects.create(name=name, version=version, **about | state | values)


def make_published(name: str = "summarize", version: str = "1.0.0", **values: Any) -> SkillBundle:
    return make_bundle(name, version, **{"status": "published", "published_at": timezone.now()} | values)
