# SPDX-License-Identifier: MIT
"""dask.distributed: the executor of a client to a cluster of local processes, without its map."""

import logging

import distributed

VERSION = f"dask.distributed {distributed.__version__}"


class ProcessPoolExecutor:
    def __init__(self, max_workers, mp_context=None):
        logging.getLogger("distributed").setLevel(logging.CRITICAL)
        self.cluster = distributed.LocalCluster(n_workers=max_workers, threads_per_worker=1,
                                                dashboard_address=None)
        self.client = distributed.Client(self.cluster)
        self.submit = self.client.get_executor(pure=False).submit

    def shutdown(self):
        self.client.close()
        self.cluster.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.shutdown()
