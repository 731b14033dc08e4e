# SPDX-License-Identifier: MIT
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor as _ThreadPoolExecutor
from concurrent.futures.thread import BrokenThreadPool as BrokenThreadPool
from typing import Any, Literal

from ._base import Executor

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
