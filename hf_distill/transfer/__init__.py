"""Transfer data: more inputs for a teacher to speak about, made of the rows that are there, in training only."""

from hf_distill.transfer.augment import Augmentation, Crop, Marks, Mask, Mix, Tokens
from hf_distill.transfer.collator import AugmentingCollator
from hf_distill.transfer.settings import TransferArguments, augmentations_of
from hf_distill.transfer.substitute import Substitute
from hf_distill.transfer.training import TransferMixin

__all__ = [
    "Augmentation",
    "AugmentingCollator",
    "Crop",
    "Marks",
    "Mask",
    "Mix",
    "Substitute",
    "Tokens",
    "TransferArguments",
    "TransferMixin",
    "augmentations_of",
]
