"""Students: how to make one from its teacher."""

from hf_distill.students.layers import keep_layers

__all__ = ["keep_layers"]
