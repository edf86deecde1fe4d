from .bootstrap import METRICS
from .domain_metrics import Classification, ClassMetrics, Metric, classification, worst
from .multilabel import multilabel_classification

__all__ = [
    "METRICS",
    "ClassMetrics",
    "Classification",
    "Metric",
    "classification",
    "multilabel_classification",
    "worst",
]
