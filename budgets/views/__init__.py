"""Console pages of money: read by selectors, act by services."""
