"""Registers the console pages of MCP servers with the admin site."""

from mcpservers.views import servers

servers.register()
