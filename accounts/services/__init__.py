"""Writes to accounts."""

from accounts.services.tokens import IssuedToken, issue_token, revoke_token

__all__ = ["IssuedToken", "issue_token", "revoke_token"]
