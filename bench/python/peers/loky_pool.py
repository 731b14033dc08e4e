# SPDX-License-Identifier: MIT
"""The process pool of joblib: loky's reusable executor, by its own start method."""

import joblib
from joblib.externals import loky

VERSION = f"joblib {joblib.__version__} with loky {loky.__version__}"


def ProcessPoolExecutor(max_workers, mp_context=None):
    return loky.get_reusable_executor(max_workers=max_workers)
