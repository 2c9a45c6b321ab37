"""Augmented views of rows: what a teacher saw of a row, a student sees again, bit for bit.

View 0 is the row as it is. Views 1, 2, ... are its augmentations, which follow from (seed, sample_id, view)
and from nothing else: not from the batch, the worker, or what was drawn before.
"""

from softcask.pipeline.views.composition import Viewed, Views
from softcask.pipeline.views.options import AugmentationOptions, ViewsOptions

__all__ = ["AugmentationOptions", "Viewed", "Views", "ViewsOptions"]
