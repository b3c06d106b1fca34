"""Posts a report on a pull request (GitHub) or merge request (GitLab): one comment, kept current.

``target`` finds out where, ``api`` speaks HTTP, ``sticky`` keeps one comment for each key. What is
in the report is the caller's business, and so is showing it where it cannot be posted.
"""

from traceq.posting.sticky import Posted, body_of, check_key, post, with_marker
from traceq.posting.target import Service, Target, find_target

__all__ = [
    "Posted",
    "Service",
    "Target",
    "body_of",
    "check_key",
    "find_target",
    "post",
    "with_marker",
]
