# SPDX-License-Identifier: MIT
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor as _ThreadPoolExecutor
from concurrent.futures.thread import BrokenThreadPool as BrokenThreadPool
from typing import Any, Literal

from ._base import Executor

class _View(Executor):
    def __init__(self, executor: ThreadPoolExecutor, priority: int) -> None: ...
    def shutdown(
        self, wait: bool = True, *, cancel_futures: bool = False, timeout: float | None = None
    ) -> None: ...

class ThreadPoolExecutor(Executor, _ThreadPoolExecutor):
    def __init__(
        self,
        max_workers: int | None = None,
        thread_name_prefix: str = "",
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        max_pending: int | None = None,
        when_full: Literal["wait", "raise", "run"] = "wait",
        inherit_context: bool = False,
    ) -> None: ...
    def using(self, *, priority: int = 0) -> _View: ...
    def shutdown(
        self, wait: bool = True, *, cancel_futures: bool = False, timeout: float | None = None
    ) -> None: ...
