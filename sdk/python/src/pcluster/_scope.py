"""What the names in an author's files stand for, found without running them."""

from __future__ import annotations

import ast
import builtins
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    Found = tuple[str, str]

#: What a class may be made by, by the module and the name of its base.
KINDS = {
    ("typing", "TypedDict"): "typed dict",
    ("typing_extensions", "TypedDict"): "typed dict",
    ("typing", "NamedTuple"): "named tuple",
    ("pydantic", "BaseModel"): "pydantic",
    ("enum", "Enum"): "enum",
    ("enum", "IntEnum"): "enum",
    ("enum", "StrEnum"): "enum",
}
#: Names that lead to others, and classes that have bases, that far.
STEPS = 32


class Scopes:
    """The names of an author's modules."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files = files
        self.known: dict[str, dict[str, ast.stmt | Found | None]] = {}

    def path_of(self, module: str) -> str | None:
        base = module.replace(".", "/")
        return next((path for path in (f"{base}.py", f"{base}/__init__.py") if path in self.files), None)

    def names(self, module: str) -> dict[str, ast.stmt | Found | None]:
        """Returns what the names of a module are: a statement, or a name of another module. `None` for one that is several."""
        if module not in self.known:
            self.known[module] = {}
            path = self.path_of(module)
            if path is not None:
                package = module if path.endswith("/__init__.py") else module.rpartition(".")[0]
                for name, meaning in meanings(self.files[path], path, package):
                    self.known[module][name] = None if name in self.known[module] else meaning
        return self.known[module]

    def resolve(self, expression: ast.expr, module: str) -> Found | None:
        """Returns module and name of what an expression names. `None` if it is no plain name, or one that is not known."""
        if isinstance(expression, ast.Attribute):
            whole = self.resolve(expression.value, module)
            # `import datetime` names a module, as `("datetime", "")`.
            if whole is None or whole[1]:
                return None
            return self.follow((whole[0], expression.attr))
        return self.follow((module, expression.id)) if isinstance(expression, ast.Name) else None

    def follow(self, found: Found) -> Found | None:
        for _ in range(STEPS):
            module, name = found
            if not name or self.path_of(module) is None:
                return found
            names = self.names(module)
            if name not in names:
                return ("builtins", name) if hasattr(builtins, name) else None
            meaning = names[name]
            if not isinstance(meaning, tuple):
                return None if meaning is None else found
            found = meaning
        return None

    def statement(self, found: Found) -> ast.stmt | None:
        meaning = self.names(found[0]).get(found[1])
        return meaning if isinstance(meaning, ast.stmt) else None

    def class_of(self, found: Found) -> ast.ClassDef | None:
        statement = self.statement(found)
        return statement if isinstance(statement, ast.ClassDef) else None

    def alias(self, found: Found) -> ast.expr | None:
        """Returns the type that another name was given to, as in `Orders = list[Order]`. `None` if it is no such name."""
        statement = self.statement(found)
        value = getattr(statement, "value", None) if not isinstance(statement, ast.ClassDef) else None
        if isinstance(value, ast.Call):
            is_new = self.resolve(value.func, found[0]) == ("typing", "NewType") and len(value.args) == 2
            return value.args[1] if is_new else None
        return value if isinstance(value, ast.expr) else None

    def bases(self, found: Found, node: ast.ClassDef) -> list[Found | None]:
        return [self.resolve(base, found[0]) for base in node.bases]

    def kind_of(self, found: Found, node: ast.ClassDef, steps: int = STEPS) -> str | None:
        """Returns what makes a class. `None` if its fields do not follow from its annotations."""
        kinds = set()
        for decorator in node.decorator_list:
            called = decorator.func if isinstance(decorator, ast.Call) else decorator
            kinds.add("dataclass" if self.resolve(called, found[0]) == ("dataclasses", "dataclass") else None)
        for base in self.bases(found, node):
            below = self.class_of(base) if base is not None else None
            if base in KINDS:
                kinds.add(KINDS[base])
            elif base is not None and below is not None and steps:
                kinds.add(self.kind_of(base, below, steps - 1))
            elif base not in (("builtins", "str"), ("builtins", "int"), ("builtins", "object")):
                kinds.add(None)
        return kinds.pop() if len(kinds) == 1 else None

    def bases_first(self, found: Found, node: ast.ClassDef, steps: int = STEPS) -> Iterator[tuple[str, ast.ClassDef]]:
        """Yields the classes whose fields a class has, each with its module."""
        for base in reversed(self.bases(found, node)) if steps else ():
            below = self.class_of(base) if base is not None else None
            if base is not None and below is not None:
                yield from self.bases_first(base, below, steps - 1)
        yield found[0], node


def is_named(expression: ast.expr, *names: str) -> bool:
    """Returns `true` if an expression, or what its arguments belong to, ends in one of these names."""
    whole = expression.value if isinstance(expression, ast.Subscript) else expression
    last = whole.attr if isinstance(whole, ast.Attribute) else getattr(whole, "id", None)
    return last in names


def meanings(text: bytes, path: str, package: str) -> Iterator[tuple[str, ast.stmt | Found | None]]:
    """Yields the names of a module, and what each is."""
    try:
        module = ast.parse(text, path)
    except (SyntaxError, ValueError):
        return
    for statement in statements(module.body):
        if isinstance(statement, ast.ImportFrom):
            whole = imported_from(statement, package)
            yield from ((alias.asname or alias.name, (whole, alias.name)) for alias in statement.names)
        elif isinstance(statement, ast.Import):
            for alias in statement.names:
                # `import a.b` names `a`.
                whole = alias.name if alias.asname else alias.name.partition(".")[0]
                yield alias.asname or whole, (whole, "")
        elif isinstance(statement, ast.Assign):
            yield from ((target.id, statement) for target in statement.targets if isinstance(target, ast.Name))
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            yield statement.target.id, statement
        elif isinstance(statement, ast.ClassDef):
            yield statement.name, statement
        elif type(statement).__name__ == "TypeAlias":
            yield statement.name.id, statement if not statement.type_params else None  # type: ignore[attr-defined]
        elif isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield statement.name, None


def statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yields the statements of a module, and those that may run."""
    for statement in body:
        yield statement
        for part in ("body", "orelse", "finalbody") if isinstance(statement, (ast.If, ast.Try, ast.With)) else ():
            yield from statements(getattr(statement, part, []))
        for handler in getattr(statement, "handlers", []):
            yield from statements(handler.body)


def imported_from(statement: ast.ImportFrom, package: str) -> str:
    """Returns the module that an import names, without dots in front."""
    parts = package.split(".") if package else []
    above = parts[: len(parts) - (statement.level - 1)] if statement.level else []
    return ".".join([*above, *([statement.module] if statement.module else [])])
