"""Label units: rows in, logits out, committed. Reading, forward pass and writing overlap."""

from softcask.pipeline.label.labeller import Labeller
from softcask.pipeline.label.recipe import LabelRecipe
from softcask.pipeline.label.work import TaskReport

__all__ = ["LabelRecipe", "Labeller", "TaskReport"]
