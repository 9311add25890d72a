"""People for tests, and a client that is signed in as one of them."""

from django.test import Client

from accounts.models import Role, User

PASSWORD = "a long enough passphrase"


def person(role: Role, username: str = "") -> User:
    """An account with PASSWORD."""
    name = username or f"some-{role.value}"
    return User.objects.create_user(name, f"{name}@example.com", PASSWORD, role=role)


def signed_in(role: Role) -> Client:
    """A browser's session, for pages; forms are posted as Django's client does it, without a CSRF token."""
    client = Client()
    client.force_login(person(role))
    return client
