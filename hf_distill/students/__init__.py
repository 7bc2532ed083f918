"""Students: how to make one from its teacher."""

from hf_distill.students.layers import keep_layers
from hf_distill.students.lineage import lineage
from hf_distill.students.vocabulary import trim_vocabulary

__all__ = ["keep_layers", "lineage", "trim_vocabulary"]
