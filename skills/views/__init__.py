"""Console pages of skills: read by selectors, act by services."""
