"""Makes a plugin of a folder with tasks: `python3 -m pcluster.build DIR -o OUT.wasm`.

The plugin is the engine of this package with the author's files and packages in its memory. Nothing is compiled.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

from pcluster import _plugin, _schema, _scope, _source

#: Folders and files of an author that are not part of a plugin. So are those with a dot in front.
LEFT_OUT = {"__pycache__", "build", "dist", "env", "node_modules", "target", "tests", "venv"}
LEFT_OUT_FILES = {"chain.toml", "conftest.py", "pyproject.toml", "requirements.txt", "setup.py"}
LEFT_OUT_ENDINGS = (".lock", ".md", ".pyc", ".wasm", "_test.py")
#: Files of other machines' code.
NATIVE = (".so", ".pyd", ".dylib", ".dll")
#: The SDK's own files in the sandbox.
SDK = (
    "__init__", "_call", "_context", "_errors", "_failure", "_files", "_log", "_sandbox", "_task", "_types", "_values", "_warm",
    "http", "kv", "objects", "publish", "secrets",
)  # fmt: skip
#: What stands in for modules in C of the standard library, by the name of the module.
STAND_INS = {"_bz2": "_no_bz2", "_lzma": "_no_lzma"}
HERE = Path(__file__).parent
ENGINE = HERE / "engine.wasm"
#: How a line of requirements.txt begins that leads to another file.
ELSEWHERE = ("-r", "-c", "-e", "--requirement ", "--requirement=", "--constraint", "--editable", ".", "/", "~")
WORKER = 'run the file as a native worker: `exec = ["python3", "-m", "pcluster.worker", "FILE.py"]` and `isolation = "worker"`'


class BuildError(Exception):
    """Why no plugin can be made. The text says what to do."""


def is_left_out(path: Path) -> bool:
    name = path.name
    if name.startswith(".") or name in LEFT_OUT:
        return True
    return path.is_file() and (
        name in LEFT_OUT_FILES or name.endswith(LEFT_OUT_ENDINGS) or (name.startswith("test_") and name.endswith(".py"))
    )


def collect(folder: Path) -> dict[str, bytes]:
    """Returns an author's files by their path in the folder."""
    found: dict[str, bytes] = {}
    for path in sorted(folder.iterdir()):
        if is_left_out(path):
            continue
        if path.is_dir():
            if path.is_symlink():
                # It could lead in a circle, and a change behind it would not be seen.
                raise BuildError(f"{path} is a link to a folder; copy the folder, or install it as a package by requirements.txt")
            found.update({f"{path.name}/{below}": content for below, content in collect(path).items()})
        elif path.name.endswith(NATIVE):
            raise BuildError(f"{path} is code for this machine, which the sandbox cannot run; {WORKER}")
        else:
            found[path.name] = path.read_bytes()
    return found


def packages(folder: Path) -> dict[str, bytes]:
    """Returns the files of installed packages, without what is of use only to their installer."""
    found: dict[str, bytes] = {}
    for path in sorted(folder.rglob("*")):
        below = path.relative_to(folder)
        top = below.parts[0]
        if not path.is_file() or "__pycache__" in below.parts or top == "bin" or top.endswith((".dist-info", ".egg-info")):
            continue
        if path.name.endswith(NATIVE):
            raise BuildError(f"the package `{top.split('.')[0]}` has code in C ({below}), which the sandbox cannot run; {WORKER}")
        found[below.as_posix()] = path.read_bytes()
    return found


def check_requirements(requirements: Path) -> None:
    """Refuses lines that lead to other files: a change there would go unseen."""
    for line in requirements.read_text(encoding="utf-8").splitlines():
        line = line.strip()
        if line.startswith(ELSEWHERE) or "file:" in line:
            raise BuildError(f"{requirements} names another file: `{line}`; write what it holds into requirements.txt itself")


def check_addresses(requirements: Path) -> None:
    """Refuses lines that pip would fetch although it may use no index."""
    for line in requirements.read_text(encoding="utf-8").splitlines():
        if "://" in line.partition(" #")[0]:
            raise BuildError(f"{requirements} names an address: `{line.strip()}`; without --offline, it is fetched")


def install(folder: Path) -> Path | None:
    """Installs what `requirements.txt` names, in pure Python. Returns the folder. `None` if there is nothing."""
    requirements = folder / "requirements.txt"
    if not requirements.is_file():
        return None
    check_requirements(requirements)
    # Which versions pip takes depends on the version of Python too.
    python = ".".join(map(str, sys.version_info[:2]))
    digest = hashlib.sha256(python.encode() + b"\0" + requirements.read_bytes()).hexdigest()[:16]
    target = folder / "build" / f"packages-{digest}"
    if target.is_dir():
        return target
    if os.environ.get("PIP_NO_INDEX"):
        check_addresses(requirements)
    work = target.with_name(f"{target.name}.{os.getpid()}")
    pure = ["--platform", "any", "--implementation", "py", "--abi", "none", "--only-binary", ":all:"]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
    done = subprocess.run(
        [*command, *pure, "--target", str(work), "--requirement", str(requirements)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or [done.stderr.strip()]
        raise BuildError(
            f"pip cannot install what {requirements} names in pure Python: {said[-1]}\n"
            f"a package with code in C has no such version; {WORKER}"
        )
    work.rename(target)
    return target


def find_tasks(files: dict[str, bytes], task_files: list[str]) -> list[_source.Found]:
    """Returns the tasks of these files, or of all."""
    found: list[_source.Found] = []
    for path in task_files or [path for path in files if path.endswith(".py")]:
        if path not in files:
            raise BuildError(f"there is no {path} among the files of the plugin; `--task-file` names one below its folder")
        found += _source.tasks(path, files[path])
    for index, task in enumerate(found):
        earlier = next((other for other in found[:index] if other.name == task.name), None)
        if earlier is not None:
            raise BuildError(
                f"{task.path}:{task.line}: there is another task `{task.name}` at {earlier.path}:{earlier.line}; rename one"
            )
    scopes = _scope.Scopes(files)
    for task in found:
        schemas = _schema.schemas(task.function, task.description["kind"], module_name(task.path), scopes)
        if schemas:
            task.description["schema"] = schemas
    if not found:
        raise BuildError("there is no task in the folder; mark a function with `@task` (from pcluster import task)")
    return found


def module_name(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def build(folder: Path, task_files: list[str], more: list[Path]) -> bytes:
    """Returns the plugin of a folder."""
    if not folder.is_dir():
        raise BuildError(f"there is no folder {folder}")
    own = collect(folder)
    found = find_tasks(own, task_files)
    if not ENGINE.is_file():
        raise BuildError("this pcluster package has no engine; in its repository, `make python` builds it")
    installed = install(folder)
    files: dict[str, bytes] = {}
    for each in [*([installed] if installed else []), *more]:
        files.update(packages(each))
    files.update(own)
    files.update({f"pcluster/{name}.py": (HERE / f"{name}.py").read_bytes() for name in SDK})
    files.update({f"{name}.py": (HERE / f"{own}.py").read_bytes() for name, own in STAND_INS.items()})
    modules = list(dict.fromkeys(module_name(task.path) for task in found))
    plan = {
        "modules": modules,
        "tasks": [task.name for task in found],
        "calls": [task.description.get("calls", []) for task in found],
    }
    files["pcluster.json"] = json.dumps(plan).encode()
    return _plugin.link(ENGINE.read_bytes(), files, [task.description for task in found])


def write(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    work = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        work.write_bytes(content)
        work.replace(path)
    except OSError:
        work.unlink(missing_ok=True)
        raise


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python3 -m pcluster.build", description="Makes a plugin of a folder with tasks in Python.")
    parser.add_argument("folder", metavar="DIR", type=Path, nargs="?", default=Path())
    parser.add_argument("-o", "--output", metavar="OUT.wasm", type=Path, required=True, help="where the plugin goes")
    parser.add_argument(
        "--task-file", metavar="FILE.py", action="append", default=[], help="a file with tasks, below DIR; all if left out"
    )
    parser.add_argument(
        "--packages", metavar="FOLDER", type=Path, action="append", default=[], help="installed packages to take along"
    )
    options = parser.parse_args(arguments)
    try:
        write(options.output, build(options.folder, options.task_file, options.packages))
    except (BuildError, _source.SourceError, _plugin.NotAnEngine, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
