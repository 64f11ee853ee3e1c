"""Publishing: what people do with the versions of a repository, a running server or none."""
