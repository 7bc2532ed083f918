"""Teachers: anything that answers a batch with Signals. ``teacher_of`` makes one of what a user passes."""

from hf_distill.teachers.adapter_off import AdapterOffTeacher
from hf_distill.teachers.cached import CachedTeacher
from hf_distill.teachers.column import ColumnTeacher
from hf_distill.teachers.ema import EMATeacher
from hf_distill.teachers.function import FunctionTeacher
from hf_distill.teachers.live import LiveTeacher
from hf_distill.teachers.load import quantization_config, remembered, teacher_of, unremembered
from hf_distill.teachers.several import Several
from hf_distill.teachers.teacher import Teacher
from hf_distill.teachers.two_tokenizers import TwoTokenizers

__all__ = [
    "AdapterOffTeacher",
    "CachedTeacher",
    "ColumnTeacher",
    "EMATeacher",
    "FunctionTeacher",
    "LiveTeacher",
    "Several",
    "Teacher",
    "TwoTokenizers",
    "quantization_config",
    "remembered",
    "teacher_of",
    "unremembered",
]
