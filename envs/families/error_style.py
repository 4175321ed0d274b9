"""Error style: how a function tells its caller that it failed.

Claims: two styles. Blend: either of them, so that every caller must handle both.
"""

from envs.families.base import ReviewFamily

ERROR_STYLE = ReviewFamily(
    name="error_style",
    question="How does parse() report bad input?",
    reasons={
        "raise ValueError": "bad input must never pass unseen",
        "return None": "callers filter the empty ones",
        "return Result": "callers match on both cases",
        "error code": "the C wrapper reads numbers",
        "error callback": "the stream must go on",
        "sentinel object": "None is a valid value",
    },
    blend="{} or {}",
)
