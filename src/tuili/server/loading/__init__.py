"""From a folder to a model that answers: configuration, instances, warm-up, parts."""
