from . import analysis as analysis
from . import averages as averages
from . import configuration as configuration
from . import data as data
from . import descents as descents
from . import diagnostics as diagnostics
from . import inference as inference
from . import landscape as landscape
from . import logs as logs
from . import methods as methods
from . import metrics as metrics
from . import models as models
from . import penalties as penalties
from . import protocols as protocols
from . import statistics as statistics
from . import transforms as transforms
from .accumulation import accumulate
from .averages import average_weights
from .compilation import traceable
from .data.loaders import batches
from .errors import InputError, RunFailed
from .inference import load_model
from .losses import BinaryCrossEntropy, CrossEntropy, SquaredError
from .methods import (
    ADRMX,
    CAD,
    CDANN,
    CMA,
    CORAL,
    DANN,
    EQRM,
    HGP,
    MMD,
    RDM,
    RSC,
    SD,
    URM,
    CausIRL,
    GroupDRO,
    Hutchinson,
    InformationBottleneck,
    LossVariance,
)
from .observation import Observation, observe
from .penalties import (
    ERM,
    IRM,
    Average,
    Constant,
    CosineSchedule,
    Explanation,
    Fishr,
    Joined,
    LinearSchedule,
    MovingAverage,
    Penalty,
    PenaltyModule,
    Product,
    Scaled,
    Schedule,
    Stateless,
    StepSchedule,
    Term,
    Total,
    VREx,
    explain,
)
from .penalties.saved_state import load_state, state_dict
from .ranks import RankLost, Ranks, average_gradients, mean_over_ranks, sum_over_ranks
from .statistics import (
    covariance_products,
    distance_to_mean,
    distance_to_mean_of_products,
    gradient_gram,
    gradient_moments,
    merge_moments,
    pairwise_distances,
    pairwise_distances_of_products,
    per_sample_gradients,
    scale_free_distance,
)
from .statistics.domain_moments import GradientMoments
from .training import (
    SGD,
    Adam,
    Compute,
    Evaluated,
    Experiment,
    Finished,
    Objective,
    Owned,
    Started,
    Stepped,
    TrainingState,
    joined,
    train,
)
from .types import DomainBatch, Layout, Problem

__version__: str

__all__ = [
    "ADRMX",
    "CAD",
    "CDANN",
    "CMA",
    "CORAL",
    "DANN",
    "EQRM",
    "ERM",
    "HGP",
    "IRM",
    "MMD",
    "RDM",
    "RSC",
    "SD",
    "SGD",
    "URM",
    "Adam",
    "Average",
    "BinaryCrossEntropy",
    "CausIRL",
    "Compute",
    "Constant",
    "CosineSchedule",
    "CrossEntropy",
    "DomainBatch",
    "Evaluated",
    "Experiment",
    "Explanation",
    "Finished",
    "Fishr",
    "GradientMoments",
    "GroupDRO",
    "Hutchinson",
    "InformationBottleneck",
    "InputError",
    "Joined",
    "Layout",
    "LinearSchedule",
    "LossVariance",
    "MovingAverage",
    "Objective",
    "Observation",
    "Owned",
    "Penalty",
    "PenaltyModule",
    "Problem",
    "Product",
    "RankLost",
    "Ranks",
    "RunFailed",
    "Scaled",
    "Schedule",
    "SquaredError",
    "Started",
    "Stateless",
    "StepSchedule",
    "Stepped",
    "Term",
    "Total",
    "TrainingState",
    "VREx",
    "accumulate",
    "analysis",
    "average_gradients",
    "average_weights",
    "averages",
    "batches",
    "configuration",
    "covariance_products",
    "data",
    "descents",
    "diagnostics",
    "distance_to_mean",
    "distance_to_mean_of_products",
    "explain",
    "gradient_gram",
    "gradient_moments",
    "inference",
    "joined",
    "landscape",
    "load_model",
    "load_state",
    "logs",
    "mean_over_ranks",
    "merge_moments",
    "methods",
    "metrics",
    "models",
    "observe",
    "pairwise_distances",
    "pairwise_distances_of_products",
    "penalties",
    "per_sample_gradients",
    "protocols",
    "scale_free_distance",
    "state_dict",
    "statistics",
    "sum_over_ranks",
    "traceable",
    "train",
    "transforms",
]
