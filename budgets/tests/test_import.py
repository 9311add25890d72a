"""Usage comes from LiteLLM's spend logs, each call once, whatever LiteLLM does."""

import datetime
from typing import Any

import pytest
from django.utils import timezone

from budgets import rules
from budgets.litellm import PAGE_SIZE
from budgets.models import LitellmKey, TokenUsage, UsageImport
from budgets.services.imports import import_usage
from budgets.tests.litellm_server import FakeLitellm, hashed
from budgets.tests.test_usage import check_sums, in_month, spent
from conftest import ApiClient
from tests.cluster.pods import make_tenant

pytestmark = pytest.mark.django_db


def key_of(tenant: Any, value: str) -> None:
    LitellmKey.objects.create(
        tenant_id=tenant.pk, tenant=tenant.name, alias=f"opencrane-{tenant.name}", token=hashed(value), state="revoked"
    )


def ago(**span: float) -> datetime.datetime:
    return timezone.now() - datetime.timedelta(**span)


def state() -> UsageImport:
    return UsageImport.objects.get()


def test_every_call_counts_once_and_for_whoever_held_the_key(api: ApiClient, litellm: FakeLitellm) -> None:
    anna = make_tenant("anna")
    make_tenant("bert")
    key_of(anna, "sk-of-anna-0123456789")
    litellm.call("sk-of-anna-0123456789", request="r1", spend=1.5, at=ago(minutes=3))
    # The name says somebody else, the key knows better; without a known key, the alias says who.
    litellm.call("sk-of-anna-0123456789", request="r2", spend=1, at=ago(minutes=2),
                 metadata={"user_api_key_alias": "opencrane-bert"})  # fmt: skip
    litellm.call(request="r3", spend=2, at=ago(minutes=1), metadata='{"user_api_key_alias": "opencrane-bert"}')
    litellm.call(request="r4", spend=4, at=ago(minutes=1), metadata={"user_api_key_alias": "somebody's own"})
    litellm.call(request="r5", spend=0, at=ago(minutes=1), prompt_tokens=0, completion_tokens=0, status="failure")
    done = import_usage()
    assert done is not None
    assert (done.seen, done.skipped, done.recorded.new, done.recorded.unattributed) == (5, 1, 4, 1)
    assert (spent(api, "anna"), spent(api, "bert")) == (2.5, 2.0)
    again = import_usage()
    assert again is not None
    assert (again.recorded.new, again.recorded.same, again.recorded.corrected) == (0, 4, 0)
    assert [row.model for row in TokenUsage.objects.filter(request_id="r1")] == ["gpt-4o-mini"]
    check_sums()


def test_the_window_moves_on_and_overlaps(litellm: FakeLitellm, settings: Any) -> None:
    settings.USAGE_OVERLAP_SECONDS = 600
    import_usage()
    [(_, _, first)] = litellm.asked
    month = rules.month_of(timezone.now())
    assert first["start_date"] == f"{(month - datetime.timedelta(days=1)).replace(day=1)} 00:00:00"
    # What is logged late is found within the overlap, ...
    litellm.call(request="late", spend=1, at=ago(minutes=8))
    litellm.call(request="too-late", spend=1, at=ago(hours=20))
    import_usage()
    assert [row.request_id for row in TokenUsage.objects.all()] == ["late"]
    # ... and what is later than that by the deep look.
    UsageImport.objects.update(deep_at=ago(hours=7))
    import_usage()
    assert TokenUsage.objects.count() == 2


def test_pages_are_read_to_the_end(litellm: FakeLitellm) -> None:
    for number in range(PAGE_SIZE + 20):
        litellm.call(request=f"r{number}", spend=0.001, at=ago(seconds=100 + number % 50))
    done = import_usage()
    assert done is not None
    assert (done.seen, done.recorded.new) == (PAGE_SIZE + 20, PAGE_SIZE + 20)
    assert [query["page"] for _, _, query in litellm.asked] == ["1", "2"]
    check_sums()


def test_late_and_corrected_logs_change_the_month_they_belong_to(litellm: FakeLitellm) -> None:
    make_tenant("anna")
    last_month = datetime.datetime.combine(
        rules.month_of(timezone.now()) - datetime.timedelta(days=2), datetime.time(12), datetime.UTC
    )
    log = litellm.call(request="r1", spend=3, at=last_month, metadata={"user_api_key_alias": "opencrane-anna"})
    import_usage()
    month = last_month.date().replace(day=1)
    assert in_month(month) == 3.0
    log["spend"] = 2.25
    UsageImport.objects.update(imported_until=last_month)
    import_usage()
    assert in_month(month) == 2.25
    check_sums()


NONSENSE: list[dict[str, Any]] = [
    {"spend": -1}, {"spend": "1"}, {"spend": None}, {"spend": 1e12}, {"prompt_tokens": -4}, {"prompt_tokens": 1.5e20},
    {"completion_tokens": "many"}, {"request_id": None}, {"request_id": ""}, {"request_id": "r" * 300},
    {"model_group": 7, "model": "\x00"}, {"metadata": "{"}, {"metadata": [1]}, {"api_key": None},
]  # fmt: skip


def test_one_log_without_sense_does_not_stop_the_others(litellm: FakeLitellm) -> None:
    for number, changes in enumerate(NONSENSE):
        litellm.call(request=f"r{number}", spend=1, at=ago(minutes=5))
        litellm.logs[-1] |= changes
    litellm.call(request="good", spend=1, at=ago(minutes=5))
    done = import_usage()
    assert done is not None
    assert (done.skipped, done.recorded.new) == (10, 5)
    assert TokenUsage.objects.filter(request_id="good").exists()
    assert state().error == ""


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        (401, "refuses the master key"), (429, "429"), (500, "500"), (b"<html>", "no JSON"), (b"[]", "no object"),
        (b'{"data": {}}', "no list"), (b'{"data": [1]}', "no list"), (b'{"data": NaN}', "no JSON"),
    ],
)  # fmt: skip
def test_a_litellm_that_fails_costs_time_and_no_usage(litellm: FakeLitellm, trouble: Any, said: str) -> None:
    litellm.call(request="r1", spend=1, at=ago(minutes=30))
    litellm.broken["/spend/logs/v2"] = trouble
    import_usage()
    assert said in state().error
    since = state().failing_since
    assert since is not None
    import_usage()
    assert state().failing_since == since
    litellm.broken.clear()
    import_usage()
    assert (state().error, state().failing_since, TokenUsage.objects.count()) == ("", None, 1)


def test_without_litellm_nothing_is_imported(settings: Any) -> None:
    settings.LITELLM_ENDPOINT = ""
    assert import_usage() is None
    settings.LITELLM_ENDPOINT = "http://127.0.0.1:1"
    settings.LITELLM_MASTER_KEY = "sk-nothing-there"
    import_usage()
    assert "did not answer" in state().error
