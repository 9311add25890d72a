from django.apps import AppConfig


class AccountsConfig(AppConfig):
    name = "accounts"

    def ready(self) -> None:
        from axes.signals import user_locked_out

        from accounts.lockout import note_lockout

        user_locked_out.connect(note_lockout, dispatch_uid="accounts.note_lockout")
