from django.apps import AppConfig


class AwarenessConfig(AppConfig):
    name = "awareness"

    def ready(self) -> None:
        from awareness import metrics  # noqa: F401  (registers its collectors)
