"""Pagination: how a client asks for the next page.

Claims: two ways. Blend: one with the other to fall back on, so that clients must support both.
"""

from envs.families.base import ReviewFamily

PAGINATION = ReviewFamily(
    name="pagination",
    question="How does a client get the next page?",
    reasons={
        "opaque cursor": "rows move while clients read",
        "page number": "people jump to a page",
        "row offset": "the report tool sends one",
        "last key": "the table is sorted by key",
        "time window": "clients sync by the hour",
        "link header": "clients follow links only",
    },
    blend="{} falling back to {}",
)
