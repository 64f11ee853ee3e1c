"""The model server: KServe v2 with Triton's extensions over one data plane."""
