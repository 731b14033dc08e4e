# SPDX-License-Identifier: MIT
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ALL_COMPLETED as ALL_COMPLETED
from concurrent.futures import FIRST_COMPLETED as FIRST_COMPLETED
from concurrent.futures import FIRST_EXCEPTION as FIRST_EXCEPTION
from concurrent.futures import BrokenExecutor as BrokenExecutor
from concurrent.futures import CancelledError as CancelledError
from concurrent.futures import Executor as _Executor
from concurrent.futures import Future as _Future
from concurrent.futures import InvalidStateError as InvalidStateError
from concurrent.futures import TimeoutError as TimeoutError
from concurrent.futures._base import CANCELLED as CANCELLED
from concurrent.futures._base import CANCELLED_AND_NOTIFIED as CANCELLED_AND_NOTIFIED
from concurrent.futures._base import FINISHED as FINISHED
from concurrent.futures._base import LOGGER as LOGGER
from concurrent.futures._base import PENDING as PENDING
from concurrent.futures._base import RUNNING as RUNNING
from concurrent.futures._base import Error as Error
from queue import Full
from typing import Any, Generic, NamedTuple, ParamSpec, Self, TypeVar

_T = TypeVar("_T")
_P = ParamSpec("_P")
_F = TypeVar("_F", bound=_Future[Any])

class TaskStopped(Error): ...
class QueueFull(Full): ...
class DeadlockError(RuntimeError): ...

class Future(_Future[_T]):
    def add_done_callback(self, fn: Callable[[Self], object]) -> None: ...
    def stop(self, grace: float = 0.0) -> bool: ...

class DoneAndNotDoneFutures(NamedTuple, Generic[_F]):
    done: set[_F]
    not_done: set[_F]

class Executor(_Executor):
    def submit(self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> Future[_T]: ...
    def map(
        self,
        fn: Callable[..., _T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[_T]: ...

def wait(
    fs: Iterable[_F], timeout: float | None = None, return_when: str = "ALL_COMPLETED"
) -> DoneAndNotDoneFutures[_F]: ...
def as_completed(fs: Iterable[_F], timeout: float | None = None) -> Iterator[_F]: ...
