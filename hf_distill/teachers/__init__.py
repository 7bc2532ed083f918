"""Teachers: anything that answers a batch with Signals. ``teacher_of`` makes one of what a user passes."""

from hf_distill.teachers.live import FunctionTeacher, LiveTeacher, teacher_of
from hf_distill.teachers.teacher import Teacher

__all__ = ["FunctionTeacher", "LiveTeacher", "Teacher", "teacher_of"]
