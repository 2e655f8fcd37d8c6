"""The client: artifacts of a zerocost server with the interface of artifacts in the process."""

from zerocost.client.remote_artifact import RemoteArtifact

__all__ = ["RemoteArtifact"]
