"""Finds the tasks in an author's files, without running them."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The most characters of a task's name.
NAME_MAX = 64
#: What a task may call.
CALLS = ("http", "kv", "objects", "publish", "secrets")


class SourceError(Exception):
    """A file that no plugin can be made of. The text begins with the file and the line."""


class Found:
    """A task: where it is, and how a plugin describes it."""

    def __init__(self, path: str, function: ast.FunctionDef, description: dict[str, object]) -> None:
        self.path = path
        self.line = function.lineno
        self.function = function
        self.description = description

    @property
    def name(self) -> str:
        return str(self.description["name"])


def parse(path: str, text: bytes) -> ast.Module:
    """Parses a file."""
    try:
        return ast.parse(text, path)
    except SyntaxError as error:
        shown = (error.text or "").rstrip()
        marked = f"\n    {shown.strip()}" if shown else ""
        if shown and error.offset:
            indent = len(shown) - len(shown.lstrip())
            marked += f"\n    {' ' * max(0, error.offset - 1 - indent)}^"
        raise SourceError(f"{path}:{error.lineno or 1}: {error.msg}{marked}") from None
    except ValueError as error:
        raise SourceError(f"{path}:1: {error}") from None


def tasks(path: str, text: bytes) -> list[Found]:
    """Returns the tasks of a file, in the order in which they stand there."""
    module = parse(path, text)
    marks = marks_of(module)
    found = []
    for function in module.body:
        if not isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        for decorator in function.decorator_list:
            called = decorator.func if isinstance(decorator, ast.Call) else decorator
            if ast.unparse(called) in marks:
                found.append(described(path, function, decorator))
    return found


def marks_of(module: ast.Module) -> set[str]:
    """Returns the names that `pcluster.task` has in a file."""
    marks = set()
    for statement in ast.walk(module):
        if isinstance(statement, ast.ImportFrom) and statement.module == "pcluster":
            marks |= {alias.asname or alias.name for alias in statement.names if alias.name == "task"}
        elif isinstance(statement, ast.Import):
            marks |= {f"{alias.asname or alias.name}.task" for alias in statement.names if alias.name == "pcluster"}
    return marks


def described(path: str, function: ast.FunctionDef | ast.AsyncFunctionDef, decorator: ast.expr) -> Found:
    where = f"{path}:{function.lineno}"
    if isinstance(function, ast.AsyncFunctionDef):
        raise SourceError(f"{where}: the task `{function.name}` is async; write a plain function, which may call asyncio.run")
    if not function.name.isascii() or len(function.name) > NAME_MAX:
        raise SourceError(f"{where}: the name `{function.name}` has other letters than a to z, or more than {NAME_MAX}")
    parameters = [*function.args.posonlyargs, *function.args.args]
    if not parameters:
        raise SourceError(f"{where}: the task `{function.name}` takes no item; give it a parameter")
    kind, output = outcome(function)
    description: dict[str, object] = {"abi": 1, "name": function.name, "kind": kind}
    description["doc"] = ast.get_docstring(function) or ""
    description["input"] = written(parameters[0].annotation)
    if output:
        description["output"] = output
    keywords = decorator.keywords if isinstance(decorator, ast.Call) else []
    init = next((keyword.value for keyword in keywords if keyword.arg == "init"), None)
    if init is not None:
        state = parameters[1].annotation if len(parameters) > 1 else None
        description["state"] = written(state) or ast.unparse(init)
    calls = next((keyword.value for keyword in keywords if keyword.arg == "calls"), None)
    if calls is not None:
        description["calls"] = called(where, calls)
    return Found(path, function, description)


def called(where: str, calls: ast.expr) -> list[str]:
    """Returns the groups of calls that a task lists. They must stand there as they are."""
    try:
        listed = list(ast.literal_eval(calls))
    except (ValueError, TypeError):
        listed = [None]
    if any(each not in CALLS for each in listed):
        raise SourceError(f"{where}: `calls` lists some of {', '.join(CALLS)}, as in `@task(calls=[\"http\"])`")
    return listed


def written(annotation: ast.expr | None) -> str:
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        return annotation.value
    return "" if annotation is None else ast.unparse(annotation)


def outcome(function: ast.FunctionDef) -> tuple[str, str]:
    """Returns the kind of a task, and the type of its outputs as its author wrote it."""
    returns = function.returns
    if yields(function):
        if isinstance(returns, ast.Subscript):
            first = returns.slice.elts[0] if isinstance(returns.slice, ast.Tuple) else returns.slice
            return "generator", ast.unparse(first)
        return "generator", ""
    if isinstance(returns, ast.Constant) and returns.value is None:
        return "sink", ""
    text = written(returns)
    parts = [part.strip() for part in text.split("|")]
    if "[" not in text and "None" in parts:
        return "filter", " | ".join(part for part in parts if part != "None")
    if isinstance(returns, ast.BinOp) and parts[-1] == "None":
        return "filter", " | ".join(parts[:-1])
    if isinstance(returns, ast.Subscript) and ast.unparse(returns.value).rpartition(".")[2] == "Optional":
        return "filter", ast.unparse(returns.slice)
    return "map", text


def yields(function: ast.FunctionDef) -> bool:
    return any(isinstance(node, (ast.Yield, ast.YieldFrom)) for node in own_nodes(function))


def own_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Yields what is in a function, but not in functions within it."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)):
            yield child
            yield from own_nodes(child)
