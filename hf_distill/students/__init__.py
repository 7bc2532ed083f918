"""Students: how to make one from its teacher."""

from hf_distill.students.budget import fit_budget
from hf_distill.students.denoisers import cut_unet
from hf_distill.students.draft_head import DraftHead
from hf_distill.students.fresh import fresh_student, resized_config
from hf_distill.students.layers import keep_layers
from hf_distill.students.lineage import lineage
from hf_distill.students.sparsity import prune_2_4, prune_magnitude
from hf_distill.students.speculative import Speculated, speculate
from hf_distill.students.vocabulary import trim_vocabulary
from hf_distill.students.width import shrink_width

__all__ = [
    "DraftHead",
    "Speculated",
    "cut_unet",
    "fit_budget",
    "fresh_student",
    "keep_layers",
    "lineage",
    "prune_2_4",
    "prune_magnitude",
    "resized_config",
    "shrink_width",
    "speculate",
    "trim_vocabulary",
]
