"""What workers have to know of tenants: the runners of their jobs."""

from tenants.services import bulk  # noqa: F401  (registers its runner)
