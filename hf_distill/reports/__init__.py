"""Reports: did the teacher help, by how much, and what did it cost?"""

from hf_distill.reports.fidelity import ClassificationMetric, GapClosed, agreement, gap_closed
from hf_distill.reports.plot import plot_comparison
from hf_distill.reports.spans import f1_shares, span_counts, span_scores, spans_of
from hf_distill.reports.speed import size_of, throughput
from hf_distill.reports.table import markdown_table

__all__ = [
    "ClassificationMetric",
    "GapClosed",
    "agreement",
    "f1_shares",
    "gap_closed",
    "markdown_table",
    "plot_comparison",
    "size_of",
    "span_counts",
    "span_scores",
    "spans_of",
    "throughput",
]
