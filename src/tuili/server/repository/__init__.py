"""Models on disk and their life: configuration, versions, compilation, load, swap, unload."""
