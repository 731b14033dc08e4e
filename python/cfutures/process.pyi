# SPDX-License-Identifier: MIT
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor as _ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool as BrokenProcessPool
from multiprocessing.context import BaseContext
from typing import Any, Literal

from ._base import Executor

class WorkerDied(BrokenProcessPool):
    pid: int | None
    signal: int | None
    exitcode: int | None
    out_of_memory: bool
    traceback: str | None
    def __init__(
        self,
        message: str = "",
        pid: int | None = None,
        signal: int | None = None,
        exitcode: int | None = None,
        out_of_memory: bool = False,
        traceback: str | None = None,
    ) -> None: ...

class _View(Executor):
    def __init__(
        self, executor: ProcessPoolExecutor, run_limit: float | None, priority: int
    ) -> None: ...
    def shutdown(
        self, wait: bool = True, *, cancel_futures: bool = False, timeout: float | None = None
    ) -> None: ...

class ProcessPoolExecutor(Executor, _ProcessPoolExecutor):
    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: BaseContext | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        max_tasks_per_child: int | None = None,
        on_crash: Literal["break", "replace", "retry"] = "break",
        max_retries: int = 1,
        max_restarts: int = 10,
        restart_window: float = 10.0,
        run_limit: float | None = None,
        max_pending: int | None = None,
        when_full: Literal["wait", "raise"] = "wait",
    ) -> None: ...
    def using(self, *, run_limit: float | None = None, priority: int = 0) -> _View: ...
    def shutdown(
        self, wait: bool = True, *, cancel_futures: bool = False, timeout: float | None = None
    ) -> None: ...
    def terminate_workers(self) -> None: ...
    def kill_workers(self) -> None: ...
