"""Console pages of skills and their sources: read by selectors, act by services."""
