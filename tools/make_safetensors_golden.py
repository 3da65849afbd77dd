#!/usr/bin/env python3
"""Writes tests/golden/public.safetensors with the public package (pip install safetensors numpy).

Run by hand when the file should change; the build and the tests need no Python.
"""
import sys

import numpy
from safetensors.numpy import save_file

save_file(
    {
        "float": numpy.array([[1.5, -2.0, 0.0], [1e-40, numpy.inf, 3.25]], numpy.float32),
        "double": numpy.array([1 / 3], numpy.float64),
        "int": numpy.array([-1, 2**31 - 1], numpy.int32),
        "long": numpy.array(-(2**63), numpy.int64),
        "byte": numpy.array([0, 128, 255], numpy.uint8),
        "half": numpy.array([0.5], numpy.float16),
        "empty": numpy.zeros((0, 4), numpy.float32),
    },
    sys.argv[1] if len(sys.argv) > 1 else "tests/golden/public.safetensors",
    metadata={"made by": "the public package"},
)
