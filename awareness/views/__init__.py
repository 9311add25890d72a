"""Console pages of awareness: the rollout board, participation, session scopes."""
