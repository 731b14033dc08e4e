# SPDX-License-Identifier: MIT
"""The life of a worker process.

A fresh interpreter that is to be a worker imports this module first: so it imports little itself,
and what else it needs when it is needed.
"""

import faulthandler
import functools
import signal
import sys

from . import _engine


class Descriptor:
    """A descriptor for a worker: inherited by a fork, sent along with any other start."""

    def __init__(self, fd):
        self.fd = fd

    def __getstate__(self):
        from multiprocessing.reduction import DupFd

        return DupFd(self.fd)

    def __setstate__(self, sent):
        self.fd = sent.detach()


def main(channel, faults, blocked, initializer, initargs):
    """Serves the channel until the pool needs this worker no longer.

    faults: where faulthandler writes.  blocked: the signals that calls find blocked.
    """
    faulthandler.enable(faults.fd)
    try:  # who started it may block all; Ctrl-C means nothing to a worker that has no call
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    except KeyboardInterrupt:
        pass
    initialize = None if initializer is None else functools.partial(initializer, *initargs)
    status = _engine.run_worker(channel.fd, initialize, _unfit, _wrap)
    if status:
        sys.exit(status)


def _unfit(error):
    """The initializer has failed."""
    import logging

    logging.getLogger("concurrent.futures").critical("Exception in initializer:", exc_info=error)


def _wrap(error, is_ours):
    """What is sent in the place of an exception of a call, or of one that could not be read."""
    from .process import _ExceptionWithTraceback, _unreadable

    if is_ours:
        return _ExceptionWithTraceback(_unreadable("The call", error), None)
    return _ExceptionWithTraceback(error, error.__traceback__)
