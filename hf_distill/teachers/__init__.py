"""Teachers: anything that answers a batch with Signals."""

from hf_distill.teachers.adapter_off import AdapterOffTeacher
from hf_distill.teachers.column import ColumnTeacher
from hf_distill.teachers.ema import EMATeacher
from hf_distill.teachers.ensemble import Several
from hf_distill.teachers.function import FunctionTeacher
from hf_distill.teachers.live import LiveTeacher
from hf_distill.teachers.teacher import Teacher

__all__ = [
    "AdapterOffTeacher",
    "ColumnTeacher",
    "EMATeacher",
    "FunctionTeacher",
    "LiveTeacher",
    "Several",
    "Teacher",
]
