"""What the mcpservers app refuses."""

from opencrane.errors import ConflictError, NotFoundError


class McpServerNotFoundError(NotFoundError):
    code, default_message = "MCP_SERVER_NOT_FOUND", "There is no such MCP server."


class McpServerExistsError(ConflictError):
    code, default_message = "MCP_SERVER_EXISTS", "There is an MCP server of that name already."


class McpCredentialNotFoundError(NotFoundError):
    code, default_message = "MCP_CREDENTIAL_NOT_FOUND", "The MCP server has no such credential."
