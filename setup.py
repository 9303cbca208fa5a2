"""Builds the Cython extensions; everything else is in pyproject.toml.

``D3RLPY_CYTHON_DEBUG=1`` compiles with bounds checks, for hunting a bad index.
"""

import os

from Cython.Build import cythonize
from setuptools import Extension, setup

DEBUG = os.environ.get("D3RLPY_CYTHON_DEBUG") == "1"

setup(
    ext_modules=cythonize(
        [Extension("d3rlpy.dataset._kernels", ["d3rlpy/dataset/_kernels.pyx"], extra_compile_args=["-O2", "-g0"])],
        build_dir="build/cython",
        compiler_directives={
            "language_level": 3,
            "boundscheck": DEBUG,
            "wraparound": False,
            "cdivision": True,
            "initializedcheck": DEBUG,
        },
    )
)
