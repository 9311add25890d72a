"""Secrets at rest: sealed, opened by any key of the ring, and sealed again by the command."""

import base64
import subprocess
import sys
from collections.abc import Callable
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from budgets.models import ProviderKey
from opencrane import encryption, rotation
from opencrane.encryption import DecryptionError, decrypt, encrypt
from opencrane.errors import DependencyNotConfiguredError
from operations.models import Webhook

OLD, NEW = bytes(range(32)), bytes(range(32, 64))
SECRET = "sk-canary-\N{SNOWMAN}"


@pytest.fixture(autouse=True)
def old_key(settings: Any) -> None:
    settings.ENCRYPTION_KEYS = (OLD,)


@pytest.fixture
def make(db: None) -> Callable[..., Webhook]:
    """Rows with an encrypted column, made by a name and a secret."""

    def webhook(name: str, secret: str = "") -> Webhook:
        return Webhook.objects.create(name=name, url="https://hooks.example.com/", secret=secret)

    return webhook


def column() -> list[str]:
    """What PostgreSQL holds."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT secret FROM operations_webhook ORDER BY name")
        return [row[0] for row in cursor.fetchall()]


def test_a_text_comes_back_and_never_looks_the_same() -> None:
    first, second = encrypt(SECRET), encrypt(SECRET)
    assert first != second
    assert decrypt(first) == decrypt(second) == SECRET
    assert first.startswith(f"oc1.{encryption.key_id(OLD)}.")
    assert decrypt(encrypt("")) == ""


def test_the_first_key_seals_and_all_open(settings: Any) -> None:
    old = encrypt(SECRET)
    settings.ENCRYPTION_KEYS = (NEW, OLD)
    assert decrypt(old) == SECRET
    assert encrypt(SECRET).startswith(f"oc1.{encryption.key_id(NEW)}.")


def test_a_missing_key_is_named_and_nothing_else(settings: Any) -> None:
    sealed = encrypt(SECRET)
    settings.ENCRYPTION_KEYS = (NEW,)
    with pytest.raises(DecryptionError) as caught:
        decrypt(sealed)
    told = f"{caught.value.message} {caught.value.detail}"
    assert encryption.key_id(OLD) in told
    assert encryption.key_id(NEW) in told
    assert SECRET not in told
    assert sealed.rpartition(".")[2] not in told
    assert (caught.value.http_status, caught.value.code) == (503, "DEPENDENCY_NOT_CONFIGURED")


def test_without_keys_nothing_is_stored(settings: Any) -> None:
    sealed = encrypt(SECRET)
    settings.ENCRYPTION_KEYS = ()
    for attempt in (lambda: encrypt(SECRET), lambda: decrypt(sealed)):
        with pytest.raises(DependencyNotConfiguredError, match="no encryption key"):
            attempt()


@pytest.mark.parametrize("position", [0, 5, 14, -1])
def test_a_changed_text_is_refused(position: int) -> None:
    sealed = encrypt(SECRET)
    other = "A" if sealed[position] != "A" else "B"
    changed = sealed[:position] + other + (sealed[position + 1 :] if position != -1 else "")
    with pytest.raises(DecryptionError):
        decrypt(changed)


def test_every_other_spelling_of_the_same_bytes_is_refused() -> None:
    """Base64 leaves bits of the last character unused, and Python's decoder skips what is not of the alphabet."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    # One byte more each, so that the last character stands for two, four and six bits.
    for secret in ("a", "ab", "abc"):
        sealed = encrypt(secret)
        assert decrypt(sealed) == secret
        others = [sealed[:-1] + last for last in alphabet if last != sealed[-1]]
        for changed in (*others, f"{sealed}=", f"{sealed}==", f"{sealed[:-1]}\n{sealed[-1]}", f"{sealed}!"):
            with pytest.raises(DecryptionError):
                decrypt(changed)


@pytest.mark.parametrize(
    "text", ["", "plain", "oc1.", "oc1.00000000.", "oc1.!!!.abc", f"oc1.{encryption.key_id(OLD)}.?"]
)
def test_what_is_no_sealed_text_is_refused(text: str) -> None:
    with pytest.raises(DecryptionError):
        decrypt(text)


def test_the_column_holds_it_sealed_and_the_row_shows_it(make: Callable[..., Webhook]) -> None:
    row = make("a", SECRET)
    assert row.secret == SECRET
    (stored,) = column()
    assert decrypt(stored) == SECRET
    read = Webhook.objects.get()
    assert read.secret == SECRET
    assert SECRET not in repr(read.__dict__), "in memory it is sealed as well"
    assert SECRET not in repr(list(Webhook.objects.values()))
    read.name = "b"
    read.save()
    assert column() == [stored], "not assigned, so not sealed again"
    read.secret = "other"
    read.save()
    assert Webhook.objects.defer("secret").get().secret == "other"
    Webhook.objects.update(secret="third")
    assert decrypt(column()[0]) == "third"


def test_rows_can_be_listed_and_saved_without_the_key(make: Callable[..., Webhook], settings: Any) -> None:
    make("a", SECRET)
    settings.ENCRYPTION_KEYS = (NEW,)
    row = Webhook.objects.get()
    row.name = "b"
    row.save()
    with pytest.raises(DecryptionError):
        _ = row.secret
    settings.ENCRYPTION_KEYS = ()
    assert make("none").secret == ""


def rotate(*arguments: str) -> str:
    out = StringIO()
    call_command("rotate_encryption", *arguments, stdout=out, stderr=out)
    return out.getvalue()


def test_rotation_seals_all_again_and_can_be_started_again(make: Callable[..., Webhook], settings: Any) -> None:
    for number in range(5):
        make(f"v{number}", f"s{number}")
    make("without")
    ProviderKey.objects.create(provider="acme", api_key=SECRET)
    settings.ENCRYPTION_KEYS = (NEW, OLD)
    told = rotate("--batch", "2")
    assert "operations.Webhook.secret: 2 of 5" in told
    assert "operations.Webhook.secret: 5 of 5" in told
    assert "budgets.ProviderKey.api_key: 1 of 1" in told
    assert "older keys may be removed" in told
    settings.ENCRYPTION_KEYS = (NEW,)
    assert [row.secret for row in Webhook.objects.order_by("name")] == ["s0", "s1", "s2", "s3", "s4", ""]
    assert ProviderKey.objects.get().api_key == SECRET
    before = column()
    assert "Sealed 0 values" in rotate()
    assert column() == before


def test_rotation_names_what_it_cannot_open_and_does_the_rest(make: Callable[..., Webhook], settings: Any) -> None:
    lost = make("lost", SECRET)
    settings.ENCRYPTION_KEYS = (NEW,)
    kept = make("kept", "kept")
    settings.ENCRYPTION_KEYS = (bytes(32), NEW)
    out = StringIO()
    with pytest.raises(CommandError, match="1 values cannot be opened"):
        call_command("rotate_encryption", stdout=out, stderr=out)
    assert f"operations.Webhook.secret {lost.pk}: " in out.getvalue()
    assert SECRET not in out.getvalue()
    settings.ENCRYPTION_KEYS = (bytes(32),)
    assert Webhook.objects.get(pk=kept.pk).secret == "kept"


def test_rotation_leaves_what_somebody_writes_meanwhile(make: Callable[..., Webhook], settings: Any) -> None:
    make("a", SECRET)
    late = make("b", SECRET)
    settings.ENCRYPTION_KEYS = (NEW, OLD)
    rows = rotation.left_to_seal(Webhook, "secret").order_by("name")
    read = list(rows.values_list("pk", "oc_sealed"))
    Webhook.objects.filter(pk=late.pk).update(secret="newer")
    assert [rotation.seal_again(Webhook, "secret", pk, sealed) for pk, sealed in read] == [True, False]
    assert [row.secret for row in Webhook.objects.order_by("name")] == [SECRET, "newer"]


@pytest.mark.parametrize("keys", ["c2hvcnQ=", "not base64!", base64.b64encode(OLD).decode() * 2, "\N{SNOWMAN}"])
def test_a_bad_key_stops_the_start_without_being_shown(keys: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from opencrane import env; env.encryption_keys('OPENCRANE_ENCRYPTION_KEYS')"],
        env={"OPENCRANE_ENCRYPTION_KEYS": keys, "PYTHONUTF8": "1"},
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1
    assert "OPENCRANE_ENCRYPTION_KEYS has a key, number 1," in done.stderr
    assert keys not in done.stderr


def test_keys_may_come_from_a_file_one_a_line(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from opencrane import env

    file = tmp_path / "keys"
    file.write_text("\n".join(base64.urlsafe_b64encode(key).decode() for key in (NEW, OLD)) + "\n")
    monkeypatch.setenv("OPENCRANE_ENCRYPTION_KEYS", f"file://{file}")
    assert env.encryption_keys("OPENCRANE_ENCRYPTION_KEYS") == (NEW, OLD)
    monkeypatch.delenv("OPENCRANE_ENCRYPTION_KEYS")
    assert env.encryption_keys("OPENCRANE_ENCRYPTION_KEYS") == ()
