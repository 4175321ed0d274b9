"""Date format: how an event's time goes over the wire.

Claims: two formats. Blend: both side by side, which can disagree.
"""

from envs.families.base import ReviewFamily

DATE_FORMAT = ReviewFamily(
    name="date_format",
    question="How is the time of an event sent?",
    reasons={
        "ISO 8601": "logs must be readable",
        "Unix seconds": "devices have no calendar",
        "Unix milliseconds": "two events share a second",
        "RFC 2822": "mail servers read it",
        "day number": "billing counts days",
        "local time": "shops print receipts from it",
    },
    blend="{} plus {}",
)
