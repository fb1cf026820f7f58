"""Derives JSON Schemas from the annotations of tasks, without running them. What is not understood is left open."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from pcluster import _scope

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    Json = dict[str, Any]

#: Types that may be within others that deep.
DEPTH = 64
TYPING = ("typing", "typing_extensions")
LISTS = ("list", "List", "Sequence", "MutableSequence", "Iterable", "Collection")
MAPS = ("dict", "Dict", "Mapping", "MutableMapping")
#: Types that each have one schema, by module and name.
SIMPLE: dict[tuple[str, str], Json] = {
    ("builtins", "int"): {"type": "integer"},
    ("builtins", "float"): {"type": "number"},
    ("builtins", "str"): {"type": "string"},
    ("builtins", "bool"): {"type": "boolean"},
    ("builtins", "bytes"): {"type": "string", "contentEncoding": "base64"},
    ("datetime", "datetime"): {"type": "string", "format": "date-time"},
    ("datetime", "date"): {"type": "string", "format": "date"},
    ("uuid", "UUID"): {"type": "string", "format": "uuid"},
}
#: What pydantic may convert, unless it is told to be strict.
CONVERTED = {"type": ["string", "number", "boolean"], "x-untold": "pydantic converts some values"}
#: Methods by which a model of pydantic may read what its fields do not say.
READING = ("__init__", "__get_validators__", "validate", "parse_obj")


class Deriver:
    """Derives the schemas of one side of a task: what it takes, or what it gives."""

    def __init__(self, scopes: _scope.Scopes, *, is_input: bool) -> None:
        self.scopes = scopes
        self.is_input = is_input
        #: Classes that are being read, each with its name if it refers to itself.
        self.open: dict[tuple[str, str], str | None] = {}
        self.definitions: dict[str, Json] = {}

    def document(self, annotation: ast.expr, module: str) -> Json | None:
        """Returns the schema of an annotation. `None` if it says nothing."""
        found = self.read(annotation, module)
        if set(found) <= {"x-untold"}:
            return None
        return {**found, "$defs": self.definitions} if self.definitions else found

    def untold(self, why: str) -> Json:
        """Returns what is not said: for what a task takes, any value; for what it gives, nobody knows."""
        return {} if self.is_input else {"x-untold": why}

    def read(self, annotation: ast.expr, module: str, depth: int = 0) -> Json:
        if depth > DEPTH:
            return self.untold("a type within many others")
        if isinstance(annotation, ast.Constant):
            return self.constant(annotation.value, module, depth)
        if isinstance(annotation, ast.BinOp) and isinstance(annotation.op, ast.BitOr):
            return any_of([self.read(each, module, depth + 1) for each in (annotation.left, annotation.right)])
        if isinstance(annotation, ast.Subscript):
            parts = annotation.slice.elts if isinstance(annotation.slice, ast.Tuple) else [annotation.slice]
            return self.generic(self.scopes.resolve(annotation.value, module), parts, module, depth)
        found = self.scopes.resolve(annotation, module)
        return self.untold(ast.unparse(annotation)) if found is None else self.named(found, depth)

    def constant(self, value: object, module: str, depth: int) -> Json:
        if value is None:
            return {"type": "null"}
        if isinstance(value, str):
            try:
                return self.read(ast.parse(value.strip(), mode="eval").body, module, depth + 1)
            except (SyntaxError, ValueError):
                pass
        return self.untold("an annotation that is no type")

    def named(self, found: tuple[str, str], depth: int) -> Json:
        """Reads a type without arguments."""
        if found in SIMPLE:
            return dict(SIMPLE[found])
        if found == ("decimal", "Decimal"):
            return {"type": ["number", "string"]} if self.is_input else {"type": "number"}
        module, name = found
        if module in (*TYPING, "builtins", "collections.abc"):
            if name in LISTS:
                return {"type": "array"} if self.is_input else {"type": "array", "items": self.untold(name)}
            if name in MAPS:
                return {"type": "object", **self.untold(name)}
            return self.untold(name)
        alias = self.scopes.alias(found)
        if alias is not None:
            return self.read(alias, module, depth + 1)
        node = self.scopes.class_of(found)
        return self.untold(name) if node is None else self.of_class(found, node, depth)

    def generic(self, found: tuple[str, str] | None, parts: list[ast.expr], module: str, depth: int) -> Json:
        """Reads a type with arguments."""
        of, name = found or ("", "")
        if of not in (*TYPING, "builtins", "collections.abc"):
            return self.untold(name or "a type with arguments")
        if name == "Literal":
            return literal(parts) or self.untold(name)
        inner = [self.read(part, module, depth + 1) for part in parts if not is_dots(part)]
        if name == "Optional":
            return any_of([*inner, {"type": "null"}])
        if name == "Union":
            return any_of(inner)
        if name in ("Annotated", "Required", "NotRequired", "ReadOnly", "Final"):
            return inner[0]
        if name in LISTS:
            return {"type": "array", "items": inner[0]}
        if name in MAPS and len(parts) == 2 and self.scopes.resolve(parts[0], module) == ("builtins", "str"):
            return {"type": "object", "additionalProperties": inner[1], **self.untold("which keys it has")}
        if name in ("tuple", "Tuple"):
            return {"type": "array", "items": inner[0]} if is_dots(parts[-1]) else fixed(inner)
        return self.untold(name)

    def of_class(self, found: tuple[str, str], node: ast.ClassDef, depth: int) -> Json:
        if found in self.open:
            name = self.open[found] = self.open[found] or self.free_name(found[1])
            return {"$ref": f"#/$defs/{name}"}
        self.open[found] = None
        read = self.body(found, node, depth)
        name = self.open.pop(found)
        if name is None:
            return read
        self.definitions[name] = read
        return {"$ref": f"#/$defs/{name}"}

    def free_name(self, name: str) -> str:
        taken = {*self.definitions, *self.open.values()}
        return next(each for each in (name, *(f"{name}{number}" for number in range(2, DEPTH * DEPTH))) if each not in taken)

    def body(self, found: tuple[str, str], node: ast.ClassDef, depth: int) -> Json:
        module = found[0]
        kind = self.scopes.kind_of(found, node)
        classes = list(self.scopes.bases_first(found, node))
        if kind == "enum":
            return (None if any(is_lenient(each) for _, each in classes) else literal(members(node))) or self.untold(node.name)
        if kind == "named tuple":
            # One is also read from an object.
            parts = [self.read(each, module, depth + 1) for _, each, _ in own_fields(node)]
            return self.untold(node.name) if self.is_input else fixed(parts)
        if kind is None or (kind == "pydantic" and any(self.is_reshaped(each) for _, each in classes)):
            return self.untold(node.name)
        fields: dict[str, tuple[Json, bool]] = {}
        for where, each in classes:
            for name, annotation, default in own_fields(each):
                is_private = kind == "pydantic" and name[0] == "_"
                if is_private or _scope.is_named(annotation, "ClassVar", "InitVar", "KW_ONLY"):
                    continue
                if kind == "pydantic" and is_renamed(annotation, default):
                    return self.untold(node.name)
                is_optional = self.is_optional(kind, each, annotation, default)
                fields[name] = (self.field(kind, annotation, where, depth + 1), is_optional)
        required = [name for name, (_, is_optional) in fields.items() if not is_optional]
        return {"type": "object", "properties": {name: read for name, (read, _) in fields.items()}, "required": required}

    def field(self, kind: str, annotation: ast.expr, module: str, depth: int) -> Json:
        read = self.read(annotation, module, depth)
        if kind != "pydantic" or not self.is_input:
            return read
        return converted(read)

    def is_reshaped(self, node: ast.ClassDef) -> bool:
        """Returns `true` if a model of pydantic reads or writes more than its fields say."""
        if any(name == "__root__" for name, _, _ in own_fields(node)) or any(is_renaming(each.arg) for each in node.keywords):
            return True
        for each in node.body:
            if isinstance(each, ast.ClassDef) and each.name == "Config":
                if each.bases or any(is_renaming(name) for part in each.body for name in targets(part)):
                    return True
            if self.is_input and isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef)):
                calls = [call for call in each.decorator_list if isinstance(call, ast.Call)]
                # What such a validator gets need not be of the field's type.
                if each.name in READING or any(keyword.arg == "pre" for call in calls for keyword in call.keywords):
                    return True
        return False

    def is_optional(self, kind: str, node: ast.ClassDef, annotation: ast.expr, default: ast.expr | None) -> bool:
        """Returns `true` if a field may be missing: in what is given, none of an object may."""
        if kind == "typed dict":
            total = next((each.value for each in node.keywords if each.arg == "total"), None)
            is_partial = isinstance(total, ast.Constant) and total.value is False
            return _scope.is_named(annotation, "NotRequired") or (is_partial and not _scope.is_named(annotation, "Required"))
        if not self.is_input:
            return False
        if kind == "pydantic" and default is None:
            # Version 1 lets them be missing.
            return _scope.is_named(annotation, "Optional") or "None" in ast.unparse(annotation)
        if kind == "pydantic" and isinstance(default, ast.Call):
            first = default.args[0] if default.args else None
            return not (isinstance(first, ast.Constant) and first.value is ...)
        if isinstance(default, ast.Call) and _scope.is_named(default.func, "field"):
            given = {keyword.arg for keyword in default.keywords}
            return bool(given & {"default", "default_factory", "init"})
        return default is not None and not (isinstance(default, ast.Constant) and default.value is ...)


def is_dots(part: ast.expr) -> bool:
    return isinstance(part, ast.Constant) and part.value is ...


def is_renamed(annotation: ast.expr, default: ast.expr | None) -> bool:
    """Returns `true` if a field of pydantic has another name in what is read."""
    calls = [each for part in (annotation, default) if part is not None for each in ast.walk(part) if isinstance(each, ast.Call)]
    return any((keyword.arg or "").endswith(("alias", "exclude")) for call in calls for keyword in call.keywords)


def is_renaming(name: str | None) -> bool:
    """Returns `true` if an option of a model of pydantic may give its fields other names."""
    return name in (None, "alias_generator", "fields")


def is_lenient(node: ast.ClassDef) -> bool:
    """Returns `true` if an enumeration decides by itself which values it has."""
    return any(isinstance(each, ast.FunctionDef) and each.name in ("_missing_", "__new__") for each in node.body)


def targets(statement: ast.stmt) -> list[str]:
    """Returns the names that a statement gives a value."""
    if isinstance(statement, ast.AnnAssign):
        found = [statement.target] if statement.value is not None else []
    else:
        found = statement.targets if isinstance(statement, ast.Assign) else []
    return [each.id if isinstance(each, ast.Name) else "" for each in found]


def members(node: ast.ClassDef) -> list[ast.expr]:
    """Returns the values of the members that an enumeration writes."""
    return [each.value for each in node.body for name in targets(each)[:1] if name[:1] != "_"]  # type: ignore[attr-defined]


def converted(read: Json) -> Json:
    """Returns the schema of what pydantic takes for a value: other values than those of its type may be read as one."""
    if "anyOf" in read:
        return read if CONVERTED in read["anyOf"] else {"anyOf": [*map(converted_parts, read["anyOf"]), CONVERTED]}
    if read.get("type") in ("object", "array"):
        return converted_parts(read)
    return {"anyOf": [read, CONVERTED]} if read and "$ref" not in read else read


def converted_parts(read: Json) -> Json:
    """Returns the schema of what pydantic takes for a value whose parts it may convert."""
    parts = dict(read)
    for key in ("items", "additionalProperties"):
        if isinstance(read.get(key), dict):
            parts[key] = converted(read[key])
    if "prefixItems" in read:
        parts["prefixItems"] = [converted(each) for each in read["prefixItems"]]
    if "properties" in read:
        parts["properties"] = {name: converted(each) for name, each in read["properties"].items()}
    return parts


def any_of(read: list[Json]) -> Json:
    flat = [part for each in read for part in (each["anyOf"] if set(each) == {"anyOf"} else [each])]
    return {} if {} in flat else {"anyOf": flat}


def fixed(read: list[Json]) -> Json:
    return {"type": "array", "prefixItems": read, "items": False, "minItems": len(read)}


def literal(parts: list[ast.expr]) -> Json | None:
    """Returns a schema of these values alone. `None` if one of them is not written there, or has no form in JSON."""
    values = []
    for part in parts:
        try:
            value = ast.literal_eval(part)
        except (ValueError, TypeError, SyntaxError):
            return None
        if not isinstance(value, (str, int, float, bool, type(None))):
            return None
        values.append(value)
    return {"enum": values} if values else None


def own_fields(node: ast.ClassDef) -> list[tuple[str, ast.expr, ast.expr | None]]:
    """Returns name, annotation and default of each field that a class writes."""
    found = [each for each in node.body if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)]
    return [(each.target.id, each.annotation, each.value) for each in found]  # type: ignore[union-attr]


def without_null(read: Json) -> Json | None:
    """Returns the schema of an output that may be left out, without the `None` that says so. `None` if nothing is left."""
    if read.get("type") == "null":
        return None
    if "enum" in read:
        return {**read, "enum": [value for value in read["enum"] if value is not None]}
    if "anyOf" not in read:
        return read
    left = [each for each in map(without_null, read["anyOf"]) if each is not None]
    (first, *more) = left or [{}]
    beside = {key: value for key, value in read.items() if key != "anyOf"}
    return {**beside, "anyOf": left} if more else {**beside, **first}


def output_of(function: ast.FunctionDef, kind: object) -> ast.expr | None:
    """Returns the annotation of one output of a task. `None` if its author wrote none."""
    returns = function.returns
    if isinstance(returns, ast.Constant) and isinstance(returns.value, str):
        try:
            returns = ast.parse(returns.value.strip(), mode="eval").body
        except (SyntaxError, ValueError):
            return None
    if returns is None or kind == "sink":
        return None
    if kind == "generator":
        if not isinstance(returns, ast.Subscript):
            return None
        return returns.slice.elts[0] if isinstance(returns.slice, ast.Tuple) else returns.slice
    return returns


def schemas(function: ast.FunctionDef, kind: object, module: str, scopes: _scope.Scopes) -> Json:
    """Returns the schemas of what a task takes and gives, as a plugin has them. Empty if its annotations say nothing."""
    first = [*function.args.posonlyargs, *function.args.args][0].annotation
    found: Mapping[str, ast.expr | None] = {"input": first, "output": output_of(function, kind)}
    read = {
        side: Deriver(scopes, is_input=side == "input").document(annotation, module)
        for side, annotation in found.items()
        if annotation is not None
    }
    output = read.get("output")
    if output and kind != "generator":
        read["output"] = without_null(output)
    return {side: schema for side, schema in read.items() if schema}
