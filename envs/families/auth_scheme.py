"""Auth scheme: how callers prove who they are, RS256 JWT against session token among others.

Claims: two schemes. Blend: one wrapped in the other, which has the costs of both and the guarantees of neither.
"""

from envs.families.base import ReviewFamily

AUTH_SCHEME = ReviewFamily(
    name="auth_scheme",
    question="How do callers sign in?",
    reasons={
        "RS256 JWT": "other services verify it offline",
        "session token": "a logout must hold at once",
        "HMAC signature": "both ends already share a secret",
        "mutual TLS": "only known hosts may call",
        "API key": "partners rotate it by hand",
        "OAuth code": "users must consent first",
    },
    blend="{} inside {}",
)
