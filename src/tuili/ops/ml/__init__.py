"""The operators of ai.onnx.ml, by family."""

from tuili.ops.ml import features, linear, trees

FAMILIES = (linear, trees, features)
