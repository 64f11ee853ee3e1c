"""Runs compiled models: loads an artifact, owns its memory and threads. Never compiles."""

from tuili.runtime.cpu import available_threads, core_classes, host_features
from tuili.runtime.library import HOST_FUNCTION, write_error
from tuili.runtime.loading import load
from tuili.runtime.model import HostSteps, Model
from tuili.runtime.pool import pool_threads

__all__ = [
    "HOST_FUNCTION",
    "HostSteps",
    "Model",
    "available_threads",
    "core_classes",
    "host_features",
    "load",
    "pool_threads",
    "write_error",
]
