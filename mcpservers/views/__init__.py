"""Console pages of MCP servers: read by selectors, act by services."""
