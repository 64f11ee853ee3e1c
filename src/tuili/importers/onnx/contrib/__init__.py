"""Converters of the fused operators that ONNX Runtime's optimizer writes (domains com.microsoft*).

Each becomes operators of the standard; the passes fuse them again in their own way. A converter
returns None, and leaves the call as it is, where only the fused operator can say what the node
says: that runs by its NumPy meaning.
"""

from __future__ import annotations

from tuili.importers.onnx.call import Converter
from tuili.importers.onnx.contrib.elementwise import ELEMENTWISE
from tuili.importers.onnx.contrib.embeddings import EMBEDDINGS
from tuili.importers.onnx.contrib.nchwc import NCHWC
from tuili.importers.onnx.contrib.nhwc import NHWC
from tuili.importers.onnx.contrib.norms import NORMS
from tuili.importers.onnx.contrib.products import PRODUCTS
from tuili.importers.onnx.contrib.quantized import QUANTIZED
from tuili.importers.onnx.contrib.renamed import RENAMED

CONTRIB: dict[str, Converter] = {
    **ELEMENTWISE,
    **EMBEDDINGS,
    **NCHWC,
    **NHWC,
    **NORMS,
    **PRODUCTS,
    **QUANTIZED,
    **RENAMED,
}
