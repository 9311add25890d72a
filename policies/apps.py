from django.apps import AppConfig


class PoliciesConfig(AppConfig):
    name = "policies"

    def ready(self) -> None:
        from cluster.kinds import register
        from policies.services.kind import ACCESS_POLICY

        register(ACCESS_POLICY)
