from django.apps import AppConfig


class TenantsConfig(AppConfig):
    name = "tenants"

    def ready(self) -> None:
        from cluster.kinds import register
        from tenants import metrics  # noqa: F401  (registers its collectors)
        from tenants.services.cluster_kind import CLUSTER_TENANT
        from tenants.services.kind import TENANT

        register(TENANT)
        register(CLUSTER_TENANT)
