"""People for tests, and a client that is signed in as one of them."""

import re
from typing import Any

from django.test import Client

from accounts.models import Role, User

PASSWORD = "a long enough passphrase"
PAGE = {"Accept": "text/html,*/*;q=0.8"}


def person(role: Role, username: str = "") -> User:
    """An account with PASSWORD."""
    name = username or f"some-{role.value}"
    return User.objects.create_user(name, f"{name}@example.com", PASSWORD, role=role)


def signed_in(role: Role) -> Client:
    """A browser's session, for pages; forms are posted as Django's client does it, without a CSRF token."""
    client = Client()
    client.force_login(person(role))
    return client


class Browser(Client):
    """Somebody's browser: signed in, and held to CSRF tokens."""

    def __init__(self, role: Role = Role.OPERATOR, username: str = "") -> None:
        super().__init__(enforce_csrf_checks=True)
        name = username or f"some-{role.value}"
        # Without a password, which takes long to hash.
        self.person = User.objects.create_user(name, f"{name}@example.com", role=role)
        self.force_login(self.person)

    def open(self, uri: str) -> str:
        answer = self.get(uri, headers=PAGE)
        assert answer.status_code == 200, answer.content
        return answer.content.decode()

    def press(self, page: str, decision: str, **fields: str) -> Any:
        """A button of the page, with the fields that it has."""
        action = re.search(r'<form method="post" action="([^"]+)"', page)
        assert action is not None
        hidden = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', page))
        return self.post(action[1], hidden | {"decision": decision} | fields, headers=PAGE)
