"""Numerical kernels: for each operation its definition (``naive.py``) and, in time, fast twins."""
