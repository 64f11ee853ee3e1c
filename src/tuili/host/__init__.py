"""Host steps: the nodes of a compiled model that Python runs by their NumPy meaning."""

from tuili.host.steps import HostSteps, host_files, host_step

__all__ = ["HostSteps", "host_files", "host_step"]
