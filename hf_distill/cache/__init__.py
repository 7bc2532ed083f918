"""What is kept of a teacher's answers, so that each costs once.

Knows: the names. Does not know: teachers, terms, trainers.
"""

from hf_distill.cache.sampled import restore, sample

__all__ = ["restore", "sample"]
