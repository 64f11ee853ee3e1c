"""ai.onnx.ml: preparing features and naming results: scalers, encoders, vectorizers, maps."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from typing import Any

import numpy as np

from tuili.ir import MapType, SequenceType, TensorType
from tuili.ops.op import Op, Result, op
from tuili.ops.shapes import same
from tuili.ops.site import Site
from tuili.ops.strings import text_array
from tuili.tensors import Array, Dim, DType

# -- numbers -------------------------------------------------------------------------------


def _scaler(X: Array, offset: Sequence[float] | None, scale: Sequence[float] | None) -> Array:
    shift = np.asarray(offset or (0.0,), np.float32)
    factor = np.asarray(scale or (1.0,), np.float32)
    return (X - shift) * factor


def _fit_columns(site: Site, *names: str) -> list[Result]:
    """Attributes with one number for each column, or one for all."""
    for name in names:
        count = len(site.attr(name) or ())
        if count > 1:
            site.same(site.shape(0)[-1], count, f"columns of X against the entries of {name}")
    return [site.shape(0)]


def _scaler_shape(site: Site) -> list[Result]:
    return _fit_columns(site, "offset", "scale")


def _imputer_shape(site: Site) -> list[Result]:
    return _fit_columns(
        site, "imputed_value_floats" if site.dtype(0).is_float else "imputed_value_int64s"
    )


def _normalizer(X: Array, norm: str) -> Array:
    x = X.astype(np.float32)
    match norm:
        case "L1":
            size = np.abs(x).sum(-1, keepdims=True)
        case "L2":
            size = np.sqrt((x * x).sum(-1, keepdims=True))
        case _:
            size = x.max(-1, keepdims=True)
    return x / np.where(size == 0, 1, size)


def _imputer(X: Array, **attrs: Any) -> Array:
    floats = X.dtype.kind == "f"
    new = attrs["imputed_value_floats"] if floats else attrs["imputed_value_int64s"]
    old = attrs["replaced_value_float"] if floats else attrs["replaced_value_int64"]
    hidden = np.isnan(X) if floats and np.isnan(old) else old == X
    return np.where(hidden, np.asarray(new, X.dtype), X)


def _feature_shape(site: Site) -> list[Result]:
    total: Dim = 0
    for index in range(site.num_inputs):
        total = total + site.shape(index)[-1]
        if site.rank(0) == site.rank(index) == 2:
            site.same(site.shape(index)[0], site.shape(0)[0], "rows of the parts")
    return [(site.shape(0)[0] if site.rank(0) == 2 else 1, total)]


def _feature_vectorizer(*inputs: Array, inputdimensions: Sequence[int] | None) -> Array:
    parts = [np.atleast_2d(part).astype(np.float32) for part in inputs]
    widths = inputdimensions or [part.shape[1] for part in parts]
    return np.concatenate([part[:, :width] for part, width in zip(parts, widths, strict=True)], 1)


def _extract_shape(site: Site) -> list[Result]:
    shape, places = site.shape(0), site.shape(1)
    count: Dim = 1
    for dim in places:
        count = count * dim
    return [(1, count) if len(shape) == 1 else (*shape[:-1], count)]


def _extract(X: Array, Y: Array) -> Array:
    picked = X[..., Y.ravel()]
    return picked.reshape(1, -1) if X.ndim == 1 else picked


# -- labels --------------------------------------------------------------------------------


def label_items(attrs: Any, role: str) -> list[Any]:
    """LabelEncoder's keys or values, from whichever attribute holds them."""
    for kind in ("tensor", "strings", "int64s", "floats"):
        found = attrs(f"{role}_{kind}")
        if found is not None:
            return np.asarray(found).ravel().tolist()
    raise ValueError(f"no attribute {role}_* is given")


def label_types(attrs: Any) -> tuple[DType, Any]:
    """The element type and the default of LabelEncoder's result."""
    tensor = attrs("values_tensor")
    default = attrs("default_tensor")
    if tensor is not None:
        kind = DType.of(np.asarray(tensor).dtype)
    elif attrs("values_strings") is not None:
        kind = DType.STR
    else:
        kind = DType.I64 if attrs("values_int64s") is not None else DType.F32
    if default is not None:
        return kind, np.asarray(default).ravel()[0]
    if kind is DType.STR:
        return kind, attrs("default_string")
    return kind, attrs("default_float") if kind.is_float else attrs("default_int64")


def _label_shape(site: Site) -> list[Result]:
    return [TensorType(label_types(site.attr)[0], site.tensor(0).shape)]


def _label_encoder(X: Array, **attrs: Any) -> Array:
    keys, values = label_items(attrs.get, "keys"), label_items(attrs.get, "values")
    kind, default = label_types(attrs.get)
    table = dict(zip(keys, values, strict=True))
    missing = next((table[key] for key in keys if key != key), default)  # noqa: PLR0124 - NaN
    found = [table.get(item, missing if item != item else default) for item in X.ravel().tolist()]  # noqa: PLR0124 - NaN
    if kind is DType.STR:
        return text_array([str(item) for item in found], X.shape)
    return np.array(found, kind.numpy).reshape(X.shape)


def _category_shape(site: Site) -> list[Result]:
    kind = DType.I64 if site.dtype(0) is DType.STR else DType.STR
    return [TensorType(kind, site.shape(0))]


def _category_mapper(X: Array, **attrs: Any) -> Array:
    pairs = list(zip(attrs["cats_strings"], attrs["cats_int64s"], strict=True))
    if X.dtype == object:
        numbers = dict(pairs)
        found = [numbers.get(item, attrs["default_int64"]) for item in X.ravel()]
        return np.array(found, np.int64).reshape(X.shape)
    words = {number: word for word, number in pairs}
    items = [words.get(item, attrs["default_string"]) for item in X.ravel().tolist()]
    return text_array(items, X.shape)


def _categories(attrs: Any) -> Sequence[Any]:
    return attrs("cats_strings") or attrs("cats_int64s") or ()


def _one_hot_shape(site: Site) -> list[Result]:
    return [(*site.shape(0), len(_categories(site.attr)))]


def _one_hot(X: Array, **attrs: Any) -> Array:
    categories = list(_categories(attrs.get))
    found = X.astype(np.int64) if attrs["cats_int64s"] else X
    hot = np.stack([found == each for each in categories], -1)
    if not attrs["zeros"] and not hot.any(-1).all():
        raise ValueError("an element is in no category; set zeros=1 to allow it")
    return hot.astype(np.float32)


# -- maps ----------------------------------------------------------------------------------


def _zip_map_shape(site: Site) -> list[Result]:
    key = DType.STR if site.attr("classlabels_strings") else DType.I64
    names = site.attr("classlabels_strings") or site.attr("classlabels_int64s")
    if not names:
        site.fail("neither classlabels_int64s nor classlabels_strings name the labels")
    site.same(site.need_rank(0, 1, 2)[-1], len(names), "a number for each label")
    return [SequenceType(MapType(key, TensorType(DType.F32, ())))]


def _zip_map(X: Array, **attrs: Any) -> list[dict[Any, Any]]:
    names = attrs["classlabels_strings"] or attrs["classlabels_int64s"]
    rows = X.reshape(-1, len(names)).tolist()
    if len(names) == 2:
        no, yes = names
        return [{no: a, yes: b} for a, b in rows]  # a quarter of the time
    return list(map(dict, map(zip, repeat(names), rows)))


def _dict_vectorizer_shape(site: Site) -> list[Result]:
    found = site.type(0)
    words = site.attr("string_vocabulary") or site.attr("int64_vocabulary")
    inner = found.value if isinstance(found, MapType) else None
    kind = inner.dtype if isinstance(inner, TensorType) else DType.F32
    return [TensorType(kind, (1, len(words)))]


def _dict_vectorizer(X: dict[Any, Any], **attrs: Any) -> Array:
    words = attrs["string_vocabulary"] or attrs["int64_vocabulary"]
    kind = np.asarray(next(iter(X.values()), np.float32(0))).dtype
    return np.array([[X.get(word, 0) for word in words]], kind)


_CASTS = {"TO_FLOAT": DType.F32, "TO_STRING": DType.STR, "TO_INT64": DType.I64}


def _cast_map_shape(site: Site) -> list[Result]:
    width: Dim = site.fresh(1) if site.attr("map_form") == "DENSE" else site.attr("max_map")
    return [TensorType(_CASTS[site.attr("cast_to")], (1, width))]


def _cast_map(X: dict[int, Any], cast_to: str, map_form: str, max_map: int) -> Array:
    if map_form == "DENSE":
        items = [X[key] for key in sorted(X)]
    else:
        items = [X.get(key, 0) for key in range(max_map)]
    if cast_to == "TO_STRING":
        return text_array([str(item) for item in items], (1, len(items)))
    return np.array([float(item) for item in items]).astype(_CASTS[cast_to].numpy).reshape(1, -1)


def _row(name: str, inputs: str, outputs: str, infer: Any, meaning: Any, **attrs: Any) -> Op:
    return op(f"ai.onnx.ml::{name}", inputs, outputs, infer, meaning, attrs=attrs)


_CATEGORIES: dict[str, Any] = {"cats_int64s": None, "cats_strings": None}
_KINDS = ("floats", "int64s", "strings", "tensor")

ROWS = (
    _row("Scaler", "X", "Y:f32", _scaler_shape, _scaler, offset=None, scale=None),
    _row("Normalizer", "X", "Y:f32", same, _normalizer, norm="MAX"),
    _row(
        "Binarizer",
        "X",
        "Y",
        same,
        lambda x, threshold: (x > threshold).astype(x.dtype),
        threshold=0.0,
    ),
    _row(
        "Imputer",
        "X",
        "Y",
        _imputer_shape,
        _imputer,
        imputed_value_floats=None,
        imputed_value_int64s=None,
        replaced_value_float=0.0,
        replaced_value_int64=0,
    ),
    _row(
        "FeatureVectorizer",
        "X*:any",
        "Y:f32",
        _feature_shape,
        _feature_vectorizer,
        inputdimensions=None,
    ),
    _row("ArrayFeatureExtractor", "X Y:i64", "Z", _extract_shape, _extract),
    _row(
        "LabelEncoder",
        "X",
        "Y:any",
        _label_shape,
        _label_encoder,
        **{f"keys_{kind}": None for kind in _KINDS},
        **{f"values_{kind}": None for kind in _KINDS},
        default_float=-0.0,
        default_int64=-1,
        default_string="_Unused",
        default_tensor=None,
    ),
    _row(
        "CategoryMapper",
        "X",
        "Y:any",
        _category_shape,
        _category_mapper,
        **_CATEGORIES,
        default_int64=-1,
        default_string="_Unused",
    ),
    _row("OneHotEncoder", "X", "Y:f32", _one_hot_shape, _one_hot, **_CATEGORIES, zeros=1),
    _row(
        "ZipMap",
        "X:f32",
        "Z:any",
        _zip_map_shape,
        _zip_map,
        classlabels_int64s=None,
        classlabels_strings=None,
    ),
    _row(
        "DictVectorizer",
        "X:any",
        "Y:any",
        _dict_vectorizer_shape,
        _dict_vectorizer,
        int64_vocabulary=None,
        string_vocabulary=None,
    ),
    _row(
        "CastMap",
        "X:any",
        "Y:any",
        _cast_map_shape,
        _cast_map,
        cast_to="TO_FLOAT",
        map_form="DENSE",
        max_map=1,
    ),
)
