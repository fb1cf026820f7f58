"""The interpreter's own part: it runs once, when the interpreter is built, and what it leaves is the interpreter's memory.

The standard library is in that memory as code, so that imports need no files. The driver finds the module `pcluster_engine`, which
takes the files of a plugin: those of its author, its packages, and the SDK.
"""

import gc  # noqa: F401  imported for those who use it: what is here already costs a plugin nothing
import io
import json  # noqa: F401
import linecache  # noqa: F401
import marshal
import os
import struct
import sys
import traceback
import types
import zlib
from importlib.machinery import BuiltinImporter, FrozenImporter, ModuleSpec

import wit_world

#: What of the standard library is of no use to a task.
LEFT_OUT = {
    "__pycache__", "_pyrepl", "antigravity.py", "config-3.14-wasm32-wasi", "ctypes", "curses", "dbm", "ensurepip", "idlelib",
    "lib-dynload", "lib2to3", "pydoc_data", "site-packages", "test", "tests", "this.py", "tkinter", "turtle.py", "turtledemo",
    "venv", "wsgiref", "xmlrpc",
}  # fmt: skip

#: The folder that the files of a plugin seem to lie in.
FOLDER = "/plugin/"


class WitWorld(wit_world.WitWorld):
    def idle(self) -> int:
        return 0


class Packed:
    """A module of the standard library: a piece of `POOL`."""

    __slots__ = ("length", "start")

    def __init__(self, start, length):
        self.start = start
        self.length = length

    def code(self):
        return marshal.loads(zlib.decompress(memoryview(POOL)[self.start : self.start + self.length]))


class Source:
    """A module of a plugin. It is compiled when it is imported."""

    __slots__ = ("path", "text")

    def __init__(self, path, text):
        self.path = path
        self.text = text

    def code(self):
        return compile(self.text, self.path, "exec", dont_inherit=True)


#: Whether it is a package, and what it is made of, by the name of the module.
MODULES = {}
#: All files of the plugin, by path.
FILES = {}
#: What is called with a module after it was imported, by its name.
AFTER_IMPORT = {}


class Importer:
    """Imports what lies in memory."""

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        found = MODULES.get(name)
        if found is None:
            return None
        is_package, content = found
        origin = FOLDER + content.path if type(content) is Source else "memory"
        spec = ModuleSpec(name, cls, origin=origin, is_package=is_package)
        if is_package:
            spec.submodule_search_locations = [FOLDER + name.replace(".", "/")]
        return spec

    @staticmethod
    def create_module(spec):
        return None

    @staticmethod
    def exec_module(module):
        name = module.__name__
        content = MODULES[name][1]
        if type(content) is Source:
            module.__file__ = FOLDER + content.path
        exec(content.code(), module.__dict__)
        after = AFTER_IMPORT.get(name)
        if after is not None:
            after(module)

    @staticmethod
    def get_code(name):
        return MODULES[name][1].code()

    @staticmethod
    def get_source(name):
        content = MODULES[name][1]
        return content.text.decode("utf-8", "replace") if type(content) is Source else None

    @staticmethod
    def is_package(name):
        return MODULES[name][0]

    @staticmethod
    def get_data(path):
        try:
            return FILES[path.removeprefix(FOLDER)]
        except KeyError:
            raise FileNotFoundError(2, "the plugin has no such file", path) from None

    @staticmethod
    def get_resource_reader(name):
        # Late: it imports `tempfile` and `random`.
        from pcluster._files import reader

        return reader(name)


def module_of(path):
    """Returns the module that a file is, and whether it is a package."""
    name = path[:-3].replace("/", ".")
    if name.endswith(".__init__"):
        return name[:-9], True
    return name, False


def unpack(files):
    """Takes the files of a plugin: their number, and for each the lengths of name and content, and both."""
    (count,) = struct.unpack_from("<I", files, 0)
    at = 4
    for _ in range(count):
        name_length, length = struct.unpack_from("<II", files, at)
        start = at + 8 + name_length
        name = bytes(files[at + 8 : start]).decode()
        at = start + length
        content = bytes(files[start:at])
        FILES[name] = content
        if name.endswith(".py"):
            module, is_package = module_of(name)
            MODULES[module] = (is_package, Source(name, content))


def start(files, variables):
    """Called once in an instance or before a snapshot. Returns the SDK's module for the driver."""
    # The build has imported it: who wants it imports it anew, and only then is it seeded in each instance.
    sys.modules.pop("random", None)
    for variable in variables:
        name, _, value = variable.decode("utf-8", "surrogateescape").partition("=")
        os.environ[name] = value
    unpack(files)
    from pcluster import _sandbox

    return _sandbox


def failed(exception, fault):
    """Tells the node why an item has failed. Returns the status."""
    sdk = sys.modules.get("pcluster._sandbox")
    if sdk is not None and hasattr(sdk, "failed"):
        return sdk.failed(exception, fault)
    reason = "".join(traceback.format_exception(exception)).rstrip()
    engine.fail(reason.encode("utf-8", "backslashreplace"))
    return 1


#: The driver adds its own functions: `log`, `fail`, `retry_after` and `context`.
engine = types.ModuleType("pcluster_engine")
engine.__dict__.update(
    start=start, failed=failed, modules=MODULES, files=FILES, after_import=AFTER_IMPORT, folder=FOLDER
)
sys.modules["pcluster_engine"] = engine


def pack(folder, prefix, pool):
    """Compiles the standard library into a pool."""
    for name in sorted(os.listdir(folder)):
        path = f"{folder}/{name}"
        if name in LEFT_OUT:
            continue
        if name.endswith(".py"):
            pack_file(path, prefix + name, pool)
        elif "." not in name and os.path.isdir(path):
            pack(path, f"{prefix}{name}/", pool)


def pack_file(path, name, pool):
    with open(path, "rb") as file:
        text = file.read()
    try:
        code = compile(text, "<lib>/" + name, "exec", dont_inherit=True, optimize=0)
    except SyntaxError:
        # A template, or a test of the compiler.
        return
    piece = zlib.compress(marshal.dumps(code), 9)
    module, is_package = module_of(name)
    MODULES[module] = (is_package, Packed(pool.tell(), len(piece)))
    pool.write(piece)


POOL_FILE = os.path.join(os.path.dirname(__file__), "pool")
INDEX_FILE = POOL_FILE + ".index"

if os.path.exists(INDEX_FILE):
    with open(INDEX_FILE, "rb") as file:
        for each, (is_package, place, length) in marshal.load(file).items():
            MODULES[each] = (is_package, Packed(place, length))
    with open(POOL_FILE, "rb") as file:
        POOL = file.read()
else:
    pool = io.BytesIO()
    pack("/python", "", pool)
    with open(POOL_FILE, "wb") as file:
        file.write(pool.getvalue())
    with open(INDEX_FILE, "wb") as file:
        marshal.dump({name: (found[0], found[1].start, found[1].length) for name, found in MODULES.items()}, file)
    raise Exception("the standard library is packed")

# Nothing is left of the folders that the build saw.
sys.path.clear()
sys.path_hooks.clear()
sys.path_importer_cache.clear()
sys.meta_path[:] = [BuiltinImporter, FrozenImporter, Importer]
for each in list(sys.modules.values()):
    spec = getattr(each, "__spec__", None)
    if spec is not None and spec.name in MODULES:
        each.__loader__ = spec.loader = Importer
os.environ.clear()
