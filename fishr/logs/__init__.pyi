from .logged_events import with_logs
from .logger import Logger, Row, flat
from .mlflow_log import MLflow
from .tensorboard_log import TensorBoard
from .wandb_log import WandB

__all__ = ["Logger", "MLflow", "Row", "TensorBoard", "WandB", "flat", "with_logs"]
