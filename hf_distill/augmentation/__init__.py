"""Transfer data: more inputs for a teacher to speak about, made of the rows that are there, in training only."""

from hf_distill.augmentation.augment import Augmentation, Crop, Marks, Mask, Mix, Tokens
from hf_distill.augmentation.collator import AugmentingCollator
from hf_distill.augmentation.settings import TransferArguments, augmentations_of
from hf_distill.augmentation.substitute import Substitute

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
    "augmentations_of",
]
