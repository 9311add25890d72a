from django.apps import AppConfig


class McpServersConfig(AppConfig):
    name = "mcpservers"
