"""Console pages of tenants: read by selectors, act by services."""
