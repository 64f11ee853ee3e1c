"""The compiled model on disk: manifest, weights, code. Never runs what it reads."""

from tuili.artifact.manifest import ABI, ALIGNMENT, CodeEntry, Manifest
from tuili.artifact.read import Artifact, Pin, is_artifact, open_artifact
from tuili.artifact.storage import Member
from tuili.artifact.write import CodeFile, Contents, write_artifact

__all__ = [
    "ABI",
    "ALIGNMENT",
    "Artifact",
    "CodeEntry",
    "CodeFile",
    "Contents",
    "Manifest",
    "Member",
    "Pin",
    "is_artifact",
    "open_artifact",
    "write_artifact",
]
