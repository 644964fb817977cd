"""What a teacher says of each view of each sample, kept on disk, so that it runs once and not at every step."""

from kdeploy.training.teacher_cache.cached import Cached
from kdeploy.training.teacher_cache.making import open_cache

__all__ = ["Cached", "open_cache"]
