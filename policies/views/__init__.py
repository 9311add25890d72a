"""Console pages of policies, groups and grants: read by selectors, act by services."""
