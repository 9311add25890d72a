"""Providers of models that are well known: what LiteLLM calls their key, and where they list their models."""

from dataclasses import dataclass, field

from django.conf import settings


@dataclass(frozen=True, slots=True)
class Provider:
    """A provider.

    Attributes:
        title: as people know it.
        variable: the environment variable that LiteLLM reads the key from; the key's name in the Secret.
        models_url: answers 200 to a good key, 401 or 403 to a bad one; empty where the address is the customer's own.
        header: carries the key; `Authorization` has it as a bearer token.
        headers: what else the endpoint wants.
    """

    title: str
    variable: str
    models_url: str = ""
    header: str = "Authorization"
    headers: dict[str, str] = field(default_factory=dict)


# Variables: https://docs.litellm.ai/docs/providers
WELL_KNOWN = {
    "anthropic": Provider(
        "Anthropic",
        "ANTHROPIC_API_KEY",
        "https://api.anthropic.com/v1/models",
        "x-api-key",
        {"anthropic-version": "2023-06-01"},
    ),
    "azure": Provider("Azure OpenAI", "AZURE_API_KEY", "", "api-key"),
    "cohere": Provider("Cohere", "COHERE_API_KEY", "https://api.cohere.com/v1/models"),
    "deepseek": Provider("DeepSeek", "DEEPSEEK_API_KEY", "https://api.deepseek.com/models"),
    "gemini": Provider(
        "Google Gemini",
        "GEMINI_API_KEY",
        "https://generativelanguage.googleapis.com/v1beta/models",
        "x-goog-api-key",
    ),
    "groq": Provider("Groq", "GROQ_API_KEY", "https://api.groq.com/openai/v1/models"),
    "mistral": Provider("Mistral", "MISTRAL_API_KEY", "https://api.mistral.ai/v1/models"),
    "openai": Provider("OpenAI", "OPENAI_API_KEY", "https://api.openai.com/v1/models"),
    # Its list of models is public; this endpoint is about the key.
    "openrouter": Provider("OpenRouter", "OPENROUTER_API_KEY", "https://openrouter.ai/api/v1/key"),
    "together-ai": Provider("Together AI", "TOGETHERAI_API_KEY", "https://api.together.xyz/v1/models"),
    "xai": Provider("xAI", "XAI_API_KEY", "https://api.x.ai/v1/models"),
}


def provider_named(name: str) -> Provider:
    """The provider; one that is not well known has a key all the same, `<NAME>_API_KEY`."""
    known = WELL_KNOWN.get(name)
    if known is None:
        known = Provider(name, f"{name.upper().replace('-', '_')}_API_KEY")
    own = settings.PROVIDER_MODELS_URLS.get(name)
    return known if own is None else Provider(known.title, known.variable, own, known.header, known.headers)
