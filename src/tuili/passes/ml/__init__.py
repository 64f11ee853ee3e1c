"""ai.onnx.ml in core operators: trees, linear models, features and their scores."""
