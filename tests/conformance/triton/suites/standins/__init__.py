"""Python models, each a `model.py`, that stand in for the C++ back ends of Triton's tests."""
