from .bootstrap import METRICS
from .domain_metrics import Classification, ClassMetrics, Metric, classification, worst

__all__ = ["METRICS", "ClassMetrics", "Classification", "Metric", "classification", "worst"]
