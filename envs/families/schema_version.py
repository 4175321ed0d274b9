"""Schema version: which version of a message both services speak.

Claims: two versions. Blend: the body of one in the envelope of the other, which no reader accepts.
"""

from envs.families.base import ReviewFamily

SCHEMA_VERSION = ReviewFamily(
    name="schema_version",
    question="Which schema do both services speak?",
    reasons={
        "v1": "old readers stay in use",
        "v2": "refunds need its fields",
        "v3": "audit needs its trace id",
        "v4": "names are split in it",
        "v5": "amounts are exact in it",
        "v6": "it alone carries tax",
    },
    blend="{} body in {} envelope",
)
