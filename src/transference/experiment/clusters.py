"""Where cells run: in this process, in worker processes, or on the machines of a Dask or Ray cluster."""

from __future__ import annotations

import importlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any, Literal

from joblib import Parallel, delayed, parallel_config
from joblib.externals.loky.process_executor import TerminatedWorkerError

from transference.core.errors import ConfigError, did_you_mean, must_be

Backend = Literal["loky", "dask", "ray"]
BACKENDS: tuple[Backend, ...] = ("loky", "dask", "ray")


class WorkerKilled(Exception):
    """A worker process ended without an answer."""


@contextmanager
def workers(backend: Backend, count: int, address: str | None, shared: Any) -> Iterator[Callable[..., Iterator[Any]]]:
    """A function that maps over tasks and yields each result when it is there, in any order.

    Parameters
    ----------
    backend
        ``loky``: processes of this machine. ``dask``, ``ray``: a cluster, or a local one of `count` workers where there
        is no address.
    count
        Cells that run at the same time.
    address
        Of the cluster's scheduler.
    shared
        The first argument of every call; it is sent once to each worker, not with each task.

    Yields
    ------
    ``imap(function, tasks)`` calls ``function(shared, *task)``.
    """
    if backend not in BACKENDS:
        raise ConfigError(f"There is no backend {backend!r}. {did_you_mean(backend, BACKENDS)}")
    if backend == "loky" and address is not None:
        raise ConfigError(must_be("The backend", "'dask' or 'ray' where an address is given", backend))
    with ExitStack() as stack:
        if backend == "ray":
            yield stack.enter_context(_ray(count, address, shared))
            return
        killed: tuple[type[Exception], ...] = (TerminatedWorkerError,)
        if backend == "dask":
            killed = (_extra("distributed", "dask").KilledWorker,)
            client = stack.enter_context(_dask_client(count, address))
            stack.enter_context(parallel_config("dask", client=client, scatter=[shared]))
            count = max(1, len(client.scheduler_info(n_workers=-1)["workers"])) if address else count
        else:
            stack.enter_context(parallel_config("loky", inner_max_num_threads=1, idle_worker_timeout=60))

        def imap(function: Callable[..., Any], tasks: Sequence[tuple[Any, ...]]) -> Iterator[Any]:
            parallel = Parallel(count, batch_size=1, return_as="generator_unordered")
            owner = os.getpid() if backend == "loky" else None
            try:
                yield from parallel(delayed(_owned)(owner, function, shared, *task) for task in tasks)
            except killed as error:
                raise WorkerKilled(str(error)) from error

        yield imap


def _owned(owner: int | None, function: Callable[..., Any], *arguments: Any) -> Any:
    if owner is not None and owner != os.getpid():
        _end_with(owner)
    return function(*arguments)


@cache
def _end_with(owner: int) -> None:
    """End this worker process soon after the one that started it is gone, which had no chance to say so if killed."""

    def watch() -> None:
        while os.getppid() == owner:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _extra(package: str, extra: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ConfigError(
            f"The backend {extra!r} needs the package {package!r}, which is not installed. "
            f"Run: pip install 'transference[{extra}]'"
        ) from error


@contextmanager
def _dask_client(count: int, address: str | None) -> Iterator[Any]:
    distributed = _extra("distributed", "dask")
    with ExitStack() as stack:
        target: Any = address
        if address is None:
            target = stack.enter_context(
                distributed.LocalCluster(n_workers=count, threads_per_worker=1, dashboard_address=None)
            )
        try:
            client = distributed.Client(target, set_as_default=False)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"There is no Dask scheduler at {address!r}: {error}. Write it as 'tcp://host:8786'."
            ) from error
        yield stack.enter_context(client)


@contextmanager
def _ray(count: int, address: str | None, shared: Any) -> Iterator[Callable[..., Iterator[Any]]]:
    """Ray itself, and not its backend for joblib, which gives no result before all are there."""
    ray = _extra("ray", "ray")
    started = not ray.is_initialized()
    if started:
        quiet = {"include_dashboard": False, "log_to_driver": False}
        try:
            ray.init(**(quiet | ({"num_cpus": count} if address is None else {"address": address})))
        except (ConnectionError, ValueError) as error:
            raise ConfigError(f"There is no Ray cluster at {address!r}: {error}. Write it as 'host:6379'.") from error
    kept = ray.put(shared)

    def imap(function: Callable[..., Any], tasks: Sequence[tuple[Any, ...]]) -> Iterator[Any]:
        remote = ray.remote(num_cpus=1, max_retries=0)(function)
        waiting = [remote.remote(kept, *task) for task in tasks]
        try:
            while waiting:
                (ready,), waiting = ray.wait(waiting)
                yield ray.get(ready)
        except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError) as error:
            raise WorkerKilled(str(error)) from error
        finally:
            for each in waiting:
                ray.cancel(each)

    try:
        yield imap
    finally:
        if started:
            ray.shutdown()
