"""Tasks of pcluster in Python.

    from pcluster import task

    @task
    def clean(order: Order) -> Order | None: ...

A task stays a plain function: call it in tests as it is. `python3 -m pcluster.build` makes a plugin of a folder of tasks, which runs
in the sandbox; `python3 -m pcluster.worker` runs the same file as a native worker, with any library.
"""

from pcluster._context import Context, context
from pcluster._errors import CallError, Fatal, Mismatch, Permanent, Transient
from pcluster._log import log
from pcluster._task import task
from pcluster._values import NULL, Tag, WithTopic

__all__ = ["NULL", "CallError", "Context", "Fatal", "Mismatch", "Permanent", "Tag", "Transient", "WithTopic", "context", "log", "task"]
__version__ = "0.1.0"
