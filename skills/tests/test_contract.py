"""Which skills a tenant gets, and why: contract and explanation say the same."""

from typing import Any

import pytest

from conftest import ApiClient
from policies.models import Grant
from policies.tests.factories import make_grant, make_group, make_tenant
from skills.models import SkillBundle
from skills.tests.factories import make_bundle, make_published
from tenants.models import Tenant

pytestmark = pytest.mark.django_db


def entitled(api: ApiClient) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = api.get("/tenants/anna/effective-contract").json()["skills"]["entitled"]
    return found


def explained(api: ApiClient, payload: str) -> Any:
    return api.get(f"/tenants/anna/access?type=skill-bundle&payload={payload}").json()


def grant(subject: Any, bundle: SkillBundle, **values: Any) -> Grant:
    return make_grant(subject, str(bundle.pk), payload_type="skill-bundle", **values)


def test_allowed_published_and_scanned_bundles_cut_by_the_allowlist(api: ApiClient) -> None:
    anna = make_tenant("anna")
    group = make_group("analysts", "ANNA@example.com")
    late, early = make_published("tables", "1.10.0"), make_published("tables", "1.9.0", content=b"early")
    charts = make_published("charts", content=b"charts")
    for bundle in (late, early, charts):
        grant(group, bundle)
    for status in ("draft", "review", "deprecated"):
        grant(group, make_bundle(status, status=status))
    failed = make_published("failed", scan_status="failed", is_cleared=False)
    grant(group, failed)
    grant(make_tenant("berta"), make_published("hers"))
    denied = make_published("denied")
    grant(group, denied)
    grant(anna, denied, access="deny")

    shown = [(skill["name"], skill["version"]) for skill in entitled(api)]
    assert shown == [("charts", "1.0.0"), ("tables", "1.9.0"), ("tables", "1.10.0")]
    assert entitled(api)[0] == {
        "id": str(charts.pk), "name": "charts", "scope": "org", "version": "1.0.0", "digest": charts.digest,
    }  # fmt: skip
    # Scanned again, it stays until the scan has said otherwise.
    api.post(f"/skills/catalog/{charts.pk}/scan")
    assert entitled(api)[0]["name"] == "charts"

    Tenant.objects.filter(name="anna").update(skill_allowlist=["tables", "hers"])
    assert {skill["name"] for skill in entitled(api)} == {"tables"}
    Tenant.objects.filter(name="anna").update(skill_allowlist=[])
    assert entitled(api) == []


def test_the_explanation_names_what_the_contract_goes_by(api: ApiClient) -> None:
    anna = make_tenant("anna")
    bundle = make_published("tables", "1.0.0")
    newer = make_bundle("tables", "2.0.0", content=b"newer")
    assert explained(api, "tables")["reason"] == "No grant gives it."
    grant(anna, bundle)
    for payload in ("tables", "tables@1.0.0", str(bundle.pk)):
        found = explained(api, payload)
        assert found["decision"] == "allow"
        assert found["payload"] == {"id": str(bundle.pk), "name": "tables@1.0.0"}
    grant(anna, newer)
    assert explained(api, "tables@2.0.0")["cuts"] == ["The bundle is a draft, not published."]
    SkillBundle.objects.filter(pk=bundle.pk).update(is_cleared=False)
    assert explained(api, "tables")["reason"] == "Its scan has not passed."
    SkillBundle.objects.filter(pk=bundle.pk).update(is_cleared=True)
    Tenant.objects.update(skill_allowlist=["charts"])
    assert explained(api, "tables")["cuts"] == ["Not among what the tenant's skillAllowlist names."]
    assert explained(api, "nothing")["cuts"] == ["There is no such bundle."]

    deny = {"subjectType": "tenant", "subjectName": "anna", "access": "deny", "priority": 10}
    ask = {"type": "skill-bundle", "payload": "tables", "grant": deny}
    assert api.post("/tenants/anna/access", ask).json()["winner"]["access"] == "deny"
    nothing = api.post("/tenants/anna/access", ask | {"payload": "nothing"})
    assert (nothing.status_code, nothing.json()["fields"]) == (400, {"payload": ["There is no such bundle."]})


def test_grants_go_with_what_they_name(api: ApiClient) -> None:
    make_tenant("anna")
    group = make_group("analysts", "anna@example.com")
    bundle = make_published()
    grant(group, bundle)
    assert len(entitled(api)) == 1
    assert api.delete(f"/groups/{group.pk}").status_code == 200
    assert entitled(api) == []
    grant("anna@example.com", bundle)
    assert api.delete(f"/skills/catalog/{bundle.pk}").status_code == 200
    assert not Grant.objects.exists()
