from django.apps import AppConfig


class TenantsConfig(AppConfig):
    name = "tenants"

    def ready(self) -> None:
        from cluster.kinds import register
        from tenants.services.kind import TENANT

        register(TENANT)
