"""Lists, details and what comes with them, at the API."""

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from conftest import ApiClient
from tenants.models import Tenant

pytestmark = pytest.mark.django_db


def fleet(count: int, **fields: Any) -> None:
    Tenant.objects.bulk_create(
        Tenant(
            **{
                "name": f"t{number:04}",
                "display_name": f"Tenant {number}",
                "email": f"t{number}@example.com",
                "team": ("red", "green", "")[number % 3],
                "generation": 1,
                "observed_generation": 1,
            }
            | fields
        )
        for number in range(count)
    )


def pages(api: ApiClient, path: str) -> Iterator[list[dict[str, Any]]]:
    following: str | None = path
    while following:
        answer = api.get(following)
        assert answer.status_code == 200, answer.content
        yield answer.json()
        link = re.fullmatch(r'<(.+)>; rel="next"', answer.headers.get("Link", ""))
        following = link.group(1) if link else None
        if following:
            assert urlsplit(following).path == "/api/v1/tenants"


def test_a_list_item_has_what_the_contract_says(api: ApiClient) -> None:
    fleet(1)
    [item] = api.get("/tenants").json()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z", item.pop("createdAt"))
    assert item == {
        "name": "t0000",
        "displayName": "Tenant 0",
        "email": "t0@example.com",
        "team": "red",
        "phase": "Pending",
        "ingressHost": None,
        "suspended": False,
        "sync": "synced",
    }


def test_pages_show_every_tenant_once_newest_first(api: ApiClient) -> None:
    fleet(57)  # One INSERT: all of them share a created_at.
    whole = [item["name"] for item in api.get("/tenants").json()]
    paged = [item["name"] for page in pages(api, "/tenants?limit=10") for item in page]
    assert paged == whole
    assert sorted(paged) == [f"t{number:04}" for number in range(57)]


def test_tenants_that_come_while_paging_shift_nothing(api: ApiClient) -> None:
    fleet(20)
    seen: list[str] = []
    for number, page in enumerate(pages(api, "/tenants?limit=5")):
        seen += [item["name"] for item in page]
        Tenant.objects.create(name=f"new-{number}", display_name="New", email="n@example.com")
    assert sorted(seen) == [f"t{number:04}" for number in range(20)]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("team=red", 4),
        ("team=none", 0),
        ("q=TENANT%201", 1),
        ("q=t3@", 1),
        ("q=100%25", 0),
        ("email=T3@EXAMPLE.COM", 1),
        ("phase=Pending", 10),
        ("phase=Running", 0),
        ("sync=synced", 10),
        ("sync=waiting", 0),
        ("sync=drifted", 0),
        ("team=red&q=t0003", 1),
        ("team=red&limit=2", 2),
        ("policyRef=p", 0),
    ],
)
def test_filters(api: ApiClient, query: str, expected: int) -> None:
    fleet(10)
    assert len(api.get(f"/tenants?{query}").json()) == expected


@pytest.mark.parametrize("query", ["phase=Gone", "sync=maybe", "limit=0", "limit=1001", "limit=x", "cursor=abc"])
def test_bad_parameters_are_a_400(api: ApiClient, query: str) -> None:
    answer = api.get(f"/tenants?{query}")
    assert answer.status_code == 400
    assert answer.json()["code"] == ("INVALID_CURSOR" if query.startswith("cursor") else "VALIDATION_ERROR")


def test_query_counts_do_not_grow_with_the_fleet(api: ApiClient, viewer_api: ApiClient) -> None:
    def queries(client: ApiClient, path: str) -> int:
        with CaptureQueriesContext(connection) as captured:
            assert client.get(path).status_code == 200
        return len(captured)

    fleet(3)
    few = [queries(api, path) for path in ("/tenants", "/tenants?limit=2&q=t", "/tenants/t0001")]
    Tenant.objects.all().delete()
    fleet(300)
    many = [queries(api, path) for path in ("/tenants", "/tenants?limit=2&q=t", "/tenants/t0001")]
    assert few == many == [1, 1, 1]
    viewer_api.get("/tenants")  # The first use of a token notes when it was used.
    assert queries(viewer_api, "/tenants/t0001") <= 3


def test_a_detail_has_an_etag_and_answers_304(api: ApiClient) -> None:
    fleet(1)
    answer = api.get("/tenants/t0000")
    assert answer.headers["ETag"] == '"1.0"'
    again = api.get("/tenants/t0000", headers={"If-None-Match": '"1.0"'})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("name", ["nobody", "NOBODY", "a%00b", "%ff", "a" * 300, "..", "ü"])
def test_an_unknown_name_is_a_404(api: ApiClient, name: str) -> None:
    for ask in (
        lambda: api.get(f"/tenants/{name}"),
        lambda: api.put(f"/tenants/{name}", {"team": "red"}),
        lambda: api.delete(f"/tenants/{name}"),
        lambda: api.get(f"/tenants/{name}/datasets"),
        lambda: api.get(f"/tenants/{name}/effective-contract"),
    ):
        answer = ask()
        assert answer.status_code == 404, answer.content
        assert answer.json()["code"] in {"TENANT_NOT_FOUND", "NOT_FOUND"}


def test_viewers_read_and_do_not_write(viewer_api: ApiClient, anonymous_api: ApiClient) -> None:
    fleet(1)
    assert viewer_api.get("/tenants").status_code == 200
    assert viewer_api.put("/tenants/t0000", {"team": "red"}).json()["code"] == "FORBIDDEN"
    assert viewer_api.post("/tenants/t0000/suspend").status_code == 403
    assert anonymous_api.get("/tenants").status_code == 401
