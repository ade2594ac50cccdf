"""Quality: what lists and models are worth, under protocols that are written down (docs/quality.md)."""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as in Triton: for a list's 200 rows numpy's threads wait longer than they work
