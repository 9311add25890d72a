"""What the budgets app refuses."""

from opencrane.errors import DependencyNotConfiguredError, NotFoundError, UpstreamError


class AccountBudgetNotFoundError(NotFoundError):
    code, default_message = "ACCOUNT_BUDGET_NOT_FOUND", "There is no budget of that account."


class LitellmKeyNotFoundError(NotFoundError):
    code, default_message = "LITELLM_KEY_NOT_FOUND", "The tenant has no LiteLLM key."


class ProviderKeyNotFoundError(NotFoundError):
    code, default_message = "PROVIDER_KEY_NOT_FOUND", "No key of that provider is kept."


class LitellmNotConfiguredError(DependencyNotConfiguredError):
    default_message = "LiteLLM is not configured; set LITELLM_ENDPOINT and LITELLM_MASTER_KEY."


class LitellmFailedError(UpstreamError):
    """LiteLLM did not answer, or not as its API says.

    Attributes:
        status: HTTP status; 0 when there was no answer.
        is_lasting: trying again as things are will not help: it refuses the master key, or the request.
    """

    default_message = "LiteLLM failed."

    def __init__(self, message: str = "", *, status: int = 0, is_lasting: bool = False, detail: str = "") -> None:
        super().__init__(message, detail=detail)
        self.status = status
        self.is_lasting = is_lasting
