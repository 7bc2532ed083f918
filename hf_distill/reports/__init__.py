"""Reports: did the teacher help, by how much, and what did it cost?"""

from hf_distill.reports.fidelity import ClassificationMetric, GapClosed, agreement, gap_closed
from hf_distill.reports.plot import plot_comparison
from hf_distill.reports.speed import size_of, throughput
from hf_distill.reports.table import markdown_table

__all__ = [
    "ClassificationMetric",
    "GapClosed",
    "agreement",
    "gap_closed",
    "markdown_table",
    "plot_comparison",
    "size_of",
    "throughput",
]
