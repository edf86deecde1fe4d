from .coral import CORAL as CORAL
from .every_method import METHODS as METHODS
from .group_dro import GroupDRO as GroupDRO
from .information_bottleneck import InformationBottleneck as InformationBottleneck
from .method import Method as Method
from .mmd import MMD as MMD
from .ranges import Range as Range
from .sd import SD as SD
