from django.apps import AppConfig


class OperationsConfig(AppConfig):
    name = "operations"

    def ready(self) -> None:
        # Connects its receivers and registers its collectors.
        from operations import gauges, timings  # noqa: F401
