"""The rollout moves forward by whole waves, goes back at once, and nobody's promotion is lost."""

import threading
from typing import Any

import pytest
from django.db import connection
from hypothesis import given
from hypothesis import strategies as st

from awareness import selectors
from awareness.rollout import Rollout
from conftest import API_TOKEN, ApiClient
from operations.models import AuditEntry
from tenants.models import Tenant

ROLLOUT = "/awareness/rollout"
WAVES = ["personal", "project", "department", "org"]


def define(api: ApiClient, **fields: Any) -> dict[str, Any]:
    answer = api.put(ROLLOUT, {"targetVersion": "2.0.0", "stableVersion": "1.4.0"} | fields)
    assert answer.status_code == 200, answer.content
    return answer.json()


def promote(api: ApiClient, wave: str | None = None) -> dict[str, Any]:
    answer = api.post(f"{ROLLOUT}/promote", {} if wave is None else {"wave": wave})
    assert answer.status_code == 200, answer.content
    return answer.json()


def tenant(name: str = "anna", **fields: Any) -> Tenant:
    return Tenant.objects.create(name=name, display_name=name, email=f"{name}@example.com", **fields)


def resolve(api: ApiClient, name: str = "anna") -> dict[str, Any]:
    return api.get(f"{ROLLOUT}/resolve/{name}").json()


def actions() -> list[str]:
    return list(AuditEntry.objects.order_by("timestamp", "id").values_list("action", flat=True))


@pytest.mark.django_db
def test_without_a_definition_everybody_runs_the_pinned_version(api: ApiClient, settings: Any) -> None:
    settings.AWARENESS_PINNED_VERSION = "1.7.3"
    tenant(awareness_wave="project")
    assert api.get(ROLLOUT).json() == {
        "targetVersion": "1.7.3",
        "stableVersion": "1.7.3",
        "waves": WAVES,
        "promotedWaves": [],
        "shadowMode": False,
        "nextWave": "personal",
    }
    assert resolve(api) == {
        "tenant": "anna", "version": "1.7.3", "promoted": False, "shadow": False, "wave": "project"
    }  # fmt: skip
    refused = api.post(f"{ROLLOUT}/promote")
    assert (refused.status_code, refused.json()["code"]) == (409, "CONFLICT")
    assert api.post(f"{ROLLOUT}/rollback").status_code == 200
    assert actions() == []


@pytest.mark.django_db
def test_waves_are_promoted_one_by_one_or_up_to_a_named_one_and_never_back(api: ApiClient) -> None:
    assert define(api)["nextWave"] == "personal"
    assert promote(api)["promotedWaves"] == ["personal"]
    assert promote(api, "department")["promotedWaves"] == ["personal", "project", "department"]
    assert promote(api, "personal")["promotedWaves"] == ["personal", "project", "department"]
    assert promote(api)["nextWave"] is None
    assert promote(api)["promotedWaves"] == WAVES
    assert actions() == ["awareness_rollout.defined"] + ["awareness_rollout.promoted"] * 3
    unknown = api.post(f"{ROLLOUT}/promote", {"wave": "moon"})
    assert unknown.status_code == 400
    assert list(unknown.json()["fields"]) == ["wave"]


@pytest.mark.django_db
def test_promotion_needs_no_body(api: ApiClient) -> None:
    define(api)
    assert api.post(f"{ROLLOUT}/promote").json()["promotedWaves"] == ["personal"]
    assert api.post(f"{ROLLOUT}/promote", {"wave": None}).json()["promotedWaves"] == ["personal", "project"]


@pytest.mark.django_db
def test_rolling_back_takes_all_waves_back_and_a_second_time_changes_nothing(api: ApiClient) -> None:
    define(api)
    promote(api, "org")
    for _ in range(2):
        assert api.post(f"{ROLLOUT}/rollback").json()["promotedWaves"] == []
    assert actions()[-1] == "awareness_rollout.rolled_back"
    assert len(actions()) == 3


@pytest.mark.django_db
def test_defining_again_resets_the_frontier_and_keeps_what_is_not_named(api: ApiClient) -> None:
    define(api, waves=["early", "late"], shadowMode=True)
    promote(api)
    state = api.put(ROLLOUT, {"targetVersion": "2.0.0"}).json()
    assert (state["stableVersion"], state["waves"], state["shadowMode"]) == ("1.4.0", ["early", "late"], True)
    assert state["promotedWaves"] == []
    before = len(actions())
    assert api.put(ROLLOUT, {"targetVersion": "2.0.0"}).status_code == 200
    assert len(actions()) == before
    cleared = api.put(ROLLOUT, {"targetVersion": "2.0.0", "waves": None, "shadowMode": None}).json()
    assert (cleared["waves"], cleared["shadowMode"]) == (WAVES, False)


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("targetVersion", "2.0"), ("targetVersion", "v2.0.0"), ("targetVersion", ""), ("targetVersion", None),
        ("targetVersion", "1.0.0-01"), ("targetVersion", "1.٢.0"), ("stableVersion", "latest"), ("waves", []),
        ("waves", ["a", "a"]), ("waves", ["a", " a "]), ("waves", [""]), ("waves", "personal"), ("waves", [1]),
        ("waves", ["x" * 64]), ("shadowMode", "yes"), ("promotedWaves", ["personal"]),
    ],
)  # fmt: skip
def test_what_makes_no_rollout_is_refused_by_name(api: ApiClient, field: str, value: Any) -> None:
    answer = api.put(ROLLOUT, {"targetVersion": "2.0.0", field: value})
    assert answer.status_code == 400, answer.content
    assert all(path.split(".")[0] == field for path in answer.json()["fields"])
    assert actions() == []


@pytest.mark.django_db
def test_tenants_follow_their_wave_and_strangers_the_last_one(api: ApiClient) -> None:
    define(api)
    tenant("anna", awareness_wave="personal")
    tenant("bert", awareness_wave="nowhere")
    tenant("cleo")
    promote(api)
    assert [resolve(api, name)["version"] for name in ("anna", "bert", "cleo")] == ["2.0.0", "1.4.0", "1.4.0"]
    assert resolve(api, "bert")["wave"] == "org"
    promote(api, "org")
    assert [resolve(api, name)["version"] for name in ("anna", "bert", "cleo")] == ["2.0.0"] * 3
    missing = api.get(f"{ROLLOUT}/resolve/nobody")
    assert (missing.status_code, missing.json()["code"]) == (404, "TENANT_NOT_FOUND")


@pytest.mark.django_db
def test_in_shadow_mode_a_promoted_wave_stays_stable(api: ApiClient) -> None:
    define(api, shadowMode=True)
    tenant("anna", awareness_wave="personal")
    promote(api)
    found = resolve(api)
    assert (found["version"], found["promoted"], found["shadow"]) == ("1.4.0", True, True)


@pytest.mark.django_db
def test_only_those_who_may_write_move_the_rollout(api: ApiClient, viewer_api: ApiClient) -> None:
    define(api)
    assert viewer_api.get(ROLLOUT).status_code == 200
    assert viewer_api.post(f"{ROLLOUT}/promote").status_code == 403
    assert api.get(ROLLOUT).json()["promotedWaves"] == []


def at_once(count: int, ask: Any) -> list[Any]:
    barrier = threading.Barrier(count)
    answers: list[Any] = []

    def one(number: int) -> None:
        try:
            client = ApiClient(API_TOKEN)
            barrier.wait(30)
            answers.append(ask(number, client))
        finally:
            connection.close()

    threads = [threading.Thread(target=one, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return answers


@pytest.mark.django_db(transaction=True)
def test_promotions_at_once_each_move_one_wave(api: ApiClient) -> None:
    define(api, waves=[f"wave-{number}" for number in range(20)])
    reached = at_once(12, lambda _, client: len(promote(client)["promotedWaves"]))
    assert sorted(reached) == list(range(1, 13))
    assert len(api.get(ROLLOUT).json()["promotedWaves"]) == 12
    entries = AuditEntry.objects.filter(action="awareness_rollout.promoted").order_by("id")
    assert sorted(len(entry.after["promotedWaves"]) for entry in entries) == list(range(1, 13))


@pytest.mark.django_db(transaction=True)
def test_first_definitions_at_once_follow_each_other(api: ApiClient) -> None:
    at_once(8, lambda number, client: define(client, targetVersion=f"2.0.{number}"))
    entries = list(AuditEntry.objects.filter(action="awareness_rollout.defined").order_by("id"))
    assert sum(entry.before is None for entry in entries) == 1
    assert len(entries) == 8
    last = {entry.after["targetVersion"] for entry in entries} - {
        entry.before["targetVersion"] for entry in entries if entry.before is not None
    }
    assert last == {api.get(ROLLOUT).json()["targetVersion"]}


@given(st.lists(st.sampled_from([None, "a", "b", "c", "d"]), max_size=8), st.booleans())
def test_the_frontier_only_grows_and_resolution_agrees_with_it(moves: list[str | None], shadow_mode: bool) -> None:
    rollout = Rollout("2.0.0", "1.0.0", ("a", "b", "c", "d"), 0, shadow_mode)
    for move in moves:
        after = rollout.promoted(move)
        assert after.frontier >= rollout.frontier
        assert move is None or move in after.promoted_waves
        assert move is not None or after.frontier == min(4, rollout.frontier + 1)
        rollout = after
    for wave in [*rollout.waves, "", "other"]:
        found = rollout.resolve(wave)
        assert found.wave == (wave if wave in rollout.waves else "d")
        assert found.promoted == (found.wave in rollout.promoted_waves)
        assert found.shadow == (found.promoted and shadow_mode)
        assert found.version == ("2.0.0" if found.promoted and not shadow_mode else "1.0.0")
    assert rollout.rolled_back().promoted_waves == ()


@pytest.mark.django_db
def test_a_preview_tells_what_a_change_would_do(api: ApiClient, django_assert_num_queries: Any) -> None:
    define(api)
    for number in range(3):
        tenant(f"p{number}", awareness_wave="personal")
    tenant("q", awareness_wave="project")
    tenant("z")
    promote(api)
    with django_assert_num_queries(2):
        preview = selectors.promotion_preview("promote", wave="org", names=2)
    assert [(each.wave, each.tenants, each.names) for each in preview.changes] == [
        ("project", 1, ("q",)), ("department", 0, ()), ("org", 1, ("z",))
    ]  # fmt: skip
    assert preview.tenants_changing_version == 2
    back = selectors.promotion_preview("rollback", names=2)
    assert [(each.wave, each.tenants, each.names) for each in back.changes] == [("personal", 3, ("p0", "p1"))]
    assert (back.changes[0].before.version, back.changes[0].after.version) == ("2.0.0", "1.4.0")
    assert api.get(ROLLOUT).json()["promotedWaves"] == ["personal"]
