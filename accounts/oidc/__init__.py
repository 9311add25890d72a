"""Sign-in by OpenID Connect: the authorization code flow with PKCE, on mozilla-django-oidc.

`provider` speaks to the issuer, `claims` judges what it says, `flow` is the two steps that a browser takes.
"""
