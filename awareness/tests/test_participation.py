"""What pods report counts once, and the report tells who is missing, behind or out of line."""

import datetime
import threading
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection, transaction
from django.utils import timezone
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.django import TestCase

from awareness import selectors
from awareness.models import Participation, ParticipationEvent, SessionScope
from awareness.services import participation
from awareness.tasks import purge_events
from cluster import rows
from cluster.locks import close_lock_connection
from conftest import ApiClient
from tenants.errors import TenantNotFoundError
from tenants.models import Tenant
from tenants.services.kind import TENANT
from tests.cluster.pods import make_tenant, token_of

EVENTS = "/api/internal/awareness/participation"
REPORT = "/awareness/participation"
PodOf = Callable[[Tenant], ApiClient]


def event(key: str = "k1", **fields: Any) -> dict[str, Any]:
    return {"kind": "heartbeat", "idempotencyKey": key} | fields


def ago(**span: float) -> str:
    return (timezone.now() - datetime.timedelta(**span)).isoformat()


def report(api: ApiClient, query: str = "") -> dict[str, Any]:
    answer = api.get(f"{REPORT}{query}")
    assert answer.status_code == 200, answer.content
    return answer.json()


def entry(api: ApiClient, name: str = "anna") -> dict[str, Any]:
    [found] = [each for each in report(api)["tenants"] if each["tenant"] == name]
    return found


def seen(tenant: Tenant, *, version: str = "", minutes: float = 0, violations: int = 0) -> None:
    at = timezone.now() - datetime.timedelta(minutes=minutes)
    Participation.objects.create(
        tenant=tenant,
        last_seen_at=at,
        running_contract_version=version,
        version_seen_at=at if version else None,
        policy_violations=violations,
    )


# -- reports of pods --------------------------------------------------------------------------------------------------


@pytest.mark.cluster
@pytest.mark.django_db
def test_a_report_counts_once(api: ApiClient, pod: PodOf) -> None:
    anna = pod(make_tenant("anna"))
    first = anna.post(EVENTS, event(contractVersion="1.0.0", outcome="policy-violation", payload={"skill": "x"}))
    assert (first.status_code, first.json()) == (201, {"status": "recorded"})
    for _ in range(2):
        again = anna.post(EVENTS, event(contractVersion="9.9.9", outcome="policy-violation"))
        assert (again.status_code, again.json()) == (200, {"status": "duplicate"})
    found = entry(api)
    assert (found["runningContractVersion"], found["policyViolations"], found["severity"]) == ("1.0.0", 1, "critical")
    assert ParticipationEvent.objects.get().payload == {"skill": "x"}


@pytest.mark.cluster
@pytest.mark.django_db
def test_the_same_key_of_another_tenant_is_another_report(api: ApiClient, pod: PodOf) -> None:
    anna, bert = make_tenant("anna"), make_tenant("bert")
    assert pod(anna).post(EVENTS, event(outcome="policy-violation")).status_code == 201
    assert pod(bert).post(EVENTS, event(contractVersion="1.0.0")).status_code == 201
    assert entry(api, "anna")["policyViolations"] == 1
    assert (entry(api, "bert")["policyViolations"], entry(api, "anna")["runningContractVersion"]) == (0, None)


@pytest.mark.cluster
@pytest.mark.django_db
def test_the_tenant_comes_from_the_token(pod: PodOf) -> None:
    anna = pod(make_tenant("anna"))
    make_tenant("bert")
    refused = anna.post(EVENTS, event(tenant="bert"))
    assert (refused.status_code, list(refused.json()["fields"])) == (400, ["tenant"])
    assert not ParticipationEvent.objects.exists()


@pytest.mark.cluster
@pytest.mark.django_db
@pytest.mark.parametrize(
    ("fields", "offender"),
    [
        ({"kind": "party"}, "kind"), ({"kind": None}, "kind"), ({"idempotencyKey": ""}, "idempotencyKey"),
        ({"idempotencyKey": "x" * 201}, "idempotencyKey"), ({"idempotencyKey": 5}, "idempotencyKey"),
        ({"occurredAt": "yesterday"}, "occurredAt"), ({"occurredAt": 5}, "occurredAt"),
        ({"occurredAt": "0001-01-01T00:00:00+14:00"}, "occurredAt"),
        ({"contractVersion": "latest"}, "contractVersion"), ({"outcome": "fine"}, "outcome"),
        ({"payload": []}, "payload"), ({"payload": {"x": "y" * 17_000}}, "payload"), ({"extra": 1}, "extra"),
    ],
)  # fmt: skip
def test_what_is_no_report_is_refused_by_name(pod: PodOf, fields: dict[str, Any], offender: str) -> None:
    anna = pod(make_tenant("anna"))
    answer = anna.post(EVENTS, event() | fields)
    assert (answer.status_code, list(answer.json().get("fields", {}))) == (400, [offender]), answer.content
    assert not ParticipationEvent.objects.exists()


@pytest.mark.cluster
@pytest.mark.django_db
def test_bodies_are_strict_and_bounded(pod: PodOf) -> None:
    anna = pod(make_tenant("anna"))
    assert anna.post(EVENTS, '{"kind": "heartbeat", "idempotencyKey": "a\\u0000"}').status_code == 400
    assert anna.post(EVENTS, "{").status_code == 400
    assert anna.post(EVENTS).status_code == 400
    assert anna.post(EVENTS, event(payload={"x": "y" * 100_000})).json()["code"] == "PAYLOAD_TOO_LARGE"
    assert anna.post(EVENTS, "a=b", content_type="application/x-www-form-urlencoded").status_code == 415
    nulls = event(occurredAt=None, contractVersion=None, outcome=None, payload=None)
    assert anna.post(EVENTS, nulls).status_code == 201


@pytest.mark.cluster
@pytest.mark.django_db
def test_late_reports_move_nothing_back_and_clocks_that_run_ahead_count_as_now(api: ApiClient, pod: PodOf) -> None:
    anna = pod(make_tenant("anna"))
    anna.post(EVENTS, event("a", occurredAt=ago(minutes=5), contractVersion="1.1.0"))
    before = entry(api)
    anna.post(EVENTS, event("b", occurredAt=ago(hours=3), contractVersion="1.0.0", outcome="policy-violation"))
    after = entry(api)
    assert (after["lastSeenAt"], after["runningContractVersion"]) == (before["lastSeenAt"], "1.1.0")
    assert after["policyViolations"] == 1
    anna.post(EVENTS, event("c", occurredAt=ago(days=-400), contractVersion="1.2.0"))
    found = Participation.objects.get()
    assert abs(timezone.now() - found.last_seen_at) < datetime.timedelta(minutes=1)
    anna.post(EVENTS, event("d", contractVersion="1.3.0"))
    assert entry(api)["runningContractVersion"] == "1.3.0"
    anna.post(EVENTS, event("e"))
    assert entry(api)["runningContractVersion"] == "1.3.0"


@pytest.mark.cluster
@pytest.mark.django_db(transaction=True)
def test_of_the_same_report_at_once_one_counts(api: ApiClient, pod: PodOf) -> None:
    make_tenant("anna")
    token = token_of("openclaw-anna")
    keys = [f"k{number % 5}" for number in range(40)]
    barrier = threading.Barrier(8)
    statuses: list[int] = []

    def send(mine: list[str]) -> None:
        try:
            client = ApiClient(token)
            barrier.wait(30)
            statuses.extend(client.post(EVENTS, event(key, outcome="policy-violation")).status_code for key in mine)
        finally:
            connection.close()

    threads = [threading.Thread(target=send, args=(keys[number::8],)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(statuses) == [200] * 35 + [201] * 5
    assert entry(api)["policyViolations"] == 5
    assert ParticipationEvent.objects.count() == 5


@pytest.mark.cluster
@pytest.mark.django_db
def test_a_report_costs_two_statements(pod: PodOf, django_assert_num_queries: Any) -> None:
    tenant = make_tenant("anna", created_at=timezone.now() - datetime.timedelta(minutes=5))
    anna = pod(tenant)
    anna.post(EVENTS, event("a"))
    with django_assert_num_queries(2):
        assert anna.post(EVENTS, event("b")).status_code == 201


_START = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
_REPORTS = st.tuples(
    st.sampled_from("abcdef"),
    st.integers(0, 5).map(lambda hours: _START + datetime.timedelta(hours=hours)),
    st.sampled_from(["", "1.0.0", "2.0.0"]),
    st.sampled_from(["", "policy-violation"]),
)


class AnyOrder(TestCase):
    """Whatever comes, in whatever order and how often: the rows say what a slow reading of the reports says."""

    @settings(max_examples=60, deadline=None)
    @given(st.lists(_REPORTS, max_size=12))
    def test_reports_add_up(self, reports: list[tuple[str, datetime.datetime, str, str]]) -> None:
        tenant = make_tenant(f"t-{uuid.uuid4()}")
        kept: dict[str, tuple[datetime.datetime, str, str]] = {}
        for key, at, version, outcome in reports:
            values = {
                "kind": "heartbeat",
                "idempotency_key": key,
                "occurred_at": at,
                "contract_version": version,
                "outcome": outcome,
            }
            is_new = participation.record_participation(tenant_id=tenant.pk, event=values)
            assert is_new == (key not in kept)
            kept.setdefault(key, (at, version, outcome))
        found = Participation.objects.filter(tenant=tenant).first()
        assert (found is None) == (not kept)
        if found is not None:
            told = [(at, version) for at, version, _ in kept.values() if version]
            assert found.last_seen_at == max(at for at, _, _ in kept.values())
            assert found.policy_violations == sum(outcome != "" for _, _, outcome in kept.values())
            if told:
                latest = max(at for at, _ in told)
                assert found.version_seen_at == latest
                assert found.running_contract_version in {version for at, version in told if at == latest}
            else:
                assert found.running_contract_version == ""


# -- the report -------------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_each_kind_of_trouble_has_its_severity(api: ApiClient, django_assert_num_queries: Any) -> None:
    api.put("/awareness/rollout", {"targetVersion": "2.0.0", "stableVersion": "1.0.0"})
    api.post("/awareness/rollout/promote")
    seen(make_tenant("a-fine", awareness_wave="personal"), version="2.0.0")
    seen(make_tenant("b-fine"), version="1.0.0")
    seen(make_tenant("c-behind", awareness_wave="personal"), version="1.0.0")
    seen(make_tenant("d-silent"), version="1.0.0", minutes=16)
    seen(make_tenant("e-untold"))
    seen(make_tenant("f-violated"), version="1.0.0", violations=2)
    make_tenant("g-never")
    with django_assert_num_queries(2):
        found = report(api)
    counts = {name: found[name] for name in ("total", "participating", "drifted", "critical", "warning")}
    assert counts == {"total": 7, "participating": 5, "drifted": 1, "critical": 1, "warning": 3}
    assert [(each["tenant"], each["severity"]) for each in found["tenants"]] == [
        ("a-fine", "ok"), ("b-fine", "ok"), ("c-behind", "warning"), ("d-silent", "warning"), ("e-untold", "ok"),
        ("f-violated", "critical"), ("g-never", "warning"),
    ]  # fmt: skip
    never = found["tenants"][-1]
    assert never == {
        "tenant": "g-never",
        "lastSeenAt": None,
        "runningContractVersion": None,
        "expectedContractVersion": "1.0.0",
        "participating": False,
        "drifted": False,
        "policyViolations": 0,
        "severity": "warning",
    }
    assert found["tenants"][0]["lastSeenAt"].endswith("Z")
    critical = report(api, "?severity=critical")
    assert [each["tenant"] for each in critical["tenants"]] == ["f-violated"]
    assert {name: critical[name] for name in counts} == counts
    assert len(report(api, "?severity=warning")["tenants"]) == 3
    assert api.get(f"{REPORT}?severity=bad").status_code == 400
    assert selectors.participation_counts() == counts
    metrics = api.get("/metrics").content.decode()
    for line in ('{severity="ok"} 3.0', '{severity="warning"} 3.0', '{severity="critical"} 1.0', "_drifted 1.0"):
        assert f"\nopencrane_participation{line}\n" in metrics


@pytest.mark.django_db
def test_the_board_counts_each_tenant_once(api: ApiClient, django_assert_num_queries: Any) -> None:
    api.put("/awareness/rollout", {"targetVersion": "2.0.0", "stableVersion": "1.0.0"})
    api.post("/awareness/rollout/promote")
    seen(make_tenant("a", awareness_wave="personal"), version="2.0.0")
    seen(make_tenant("b", awareness_wave="personal"), version="1.0.0")
    seen(make_tenant("c", awareness_wave="personal"), version="2.0.0", minutes=20)
    seen(make_tenant("d"), version="1.0.0")
    seen(make_tenant("e"))
    seen(make_tenant("f"), version="2.0.0")
    with django_assert_num_queries(2):
        board = selectors.board()
    personal, *_, org = board.columns
    assert [column.wave for column in board.columns] == ["personal", "project", "department", "org"]
    assert (personal.promoted, personal.version, org.promoted, org.version) == (True, "2.0.0", False, "1.0.0")
    assert (personal.tenants, personal.on_target, personal.drifted, personal.silent) == (3, 1, 1, 1)
    assert (org.tenants, org.on_stable, org.drifted, org.unreported, org.silent) == (3, 1, 1, 1, 0)


@pytest.mark.django_db
def test_pages_have_every_tenant_once(api: ApiClient) -> None:
    for number in range(25):
        make_tenant(f"t{number:02}")
    names: list[str] = []
    path: str | None = f"{REPORT}?limit=10&severity=warning"
    while path:
        answer = api.get(path)
        assert answer.json()["total"] == 25
        names += [each["tenant"] for each in answer.json()["tenants"]]
        path = answer.headers["Link"].split(">")[0].strip("<") if "Link" in answer.headers else None
    assert names == [f"t{number:02}" for number in range(25)]
    assert api.get(f"{REPORT}?limit=25").headers.get("Link") is None
    assert api.get(f"{REPORT}?cursor=x").json()["code"] == "INVALID_CURSOR"
    assert api.get(f"{REPORT}?limit=0").status_code == 400


# -- what goes --------------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_old_reports_go_with_their_violations_and_keys(settings: Any) -> None:
    settings.PARTICIPATION_DAYS = 7
    anna = make_tenant("anna")
    for key, outcome in (("old", "policy-violation"), ("older", "ok"), ("new", "policy-violation")):
        values = {"kind": "heartbeat", "idempotency_key": key, "outcome": outcome}
        participation.record_participation(tenant_id=anna.pk, event=values)
    long_ago = timezone.now() - datetime.timedelta(days=8)
    ParticipationEvent.objects.exclude(idempotency_key="new").update(received_at=long_ago)
    purge_events()
    assert [each.idempotency_key for each in ParticipationEvent.objects.all()] == ["new"]
    found = Participation.objects.get()
    assert found.policy_violations == 1
    assert participation.record_participation(tenant_id=anna.pk, event={"kind": "heartbeat", "idempotency_key": "old"})
    assert participation.purge_events() == 0
    close_lock_connection()


@pytest.mark.django_db
def test_a_deleted_tenant_takes_its_reports_and_sessions_along(api: ApiClient) -> None:
    anna, bert = make_tenant("anna"), make_tenant("bert")
    for tenant in (anna, bert):
        values = {"kind": "heartbeat", "idempotency_key": "k"}
        participation.record_participation(tenant_id=tenant.pk, event=values)
        SessionScope.objects.create(session_key=f"s-{tenant.name}", principal=tenant.name, tenant=tenant, scopes=[])
    TENANT.on_deleted(anna, None)
    rows.delete(anna)
    assert [row.tenant_id for row in ParticipationEvent.objects.all()] == [bert.pk]
    assert [row.tenant_id for row in Participation.objects.all()] == [bert.pk]
    assert [row.session_key for row in SessionScope.objects.all()] == ["s-bert"]


@pytest.mark.django_db(transaction=True)
def test_a_report_that_comes_while_its_tenant_goes_leaves_nothing_behind() -> None:
    anna = make_tenant("anna")
    values = {"kind": "heartbeat", "idempotency_key": "k"}
    Tenant.objects.filter(pk=anna.pk).delete()
    with pytest.raises(TenantNotFoundError):
        participation.record_participation(tenant_id=anna.pk, event=values)
    assert not ParticipationEvent.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_reports_that_race_with_the_deletion_leave_nothing_behind() -> None:
    for turn in range(5):
        anna = make_tenant(f"anna-{turn}")
        if turn % 2:
            seen(anna)
        barrier = threading.Barrier(5)

        def report_on(tenant_id: uuid.UUID, barrier: threading.Barrier = barrier) -> None:
            try:
                barrier.wait(30)
                for _ in range(50):
                    values = {"kind": "heartbeat", "idempotency_key": str(uuid.uuid4())}
                    participation.record_participation(tenant_id=tenant_id, event=values)
            except TenantNotFoundError:
                pass
            finally:
                connection.close()

        threads = [threading.Thread(target=report_on, args=(anna.pk,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        barrier.wait(30)
        # As the sync engine does it once the resource is gone.
        with transaction.atomic():
            row = Tenant.objects.select_for_update().get(pk=anna.pk)
            TENANT.on_deleted(row, None)
            rows.delete(row)
        for thread in threads:
            thread.join(60)
    assert not ParticipationEvent.objects.exists()
    assert not Participation.objects.exists()
