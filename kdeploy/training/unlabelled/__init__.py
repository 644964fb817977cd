"""What a student minimises that has few labels, and a teacher's for all other images."""

from kdeploy.training.unlabelled.mixed import Mixed, Reliability
from kdeploy.training.unlabelled.objective import FewLabels, Plain
from kdeploy.training.unlabelled.weighted import Compared, Sureness, Weighted, Weighting

__all__ = ["Compared", "FewLabels", "Mixed", "Plain", "Reliability", "Sureness", "Weighted", "Weighting"]
