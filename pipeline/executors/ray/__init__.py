"""On Ray: an actor a worker. Only tasks and reports cross its object store; these files alone import Ray."""

from softcask.pipeline.executors.ray.executor import RayExecutor

__all__ = ["RayExecutor"]
