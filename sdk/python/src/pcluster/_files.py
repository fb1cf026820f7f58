"""The files of a plugin, for `importlib.resources`. Used in the sandbox alone."""

from __future__ import annotations

import io
from importlib.resources.abc import Traversable, TraversableResources

import pcluster_engine as engine


class File(Traversable):
    """A file or a folder of the plugin."""

    def __init__(self, path):
        self.path = path

    @property
    def name(self):
        return self.path.rpartition("/")[2]

    def _below(self):
        folder = f"{self.path}/" if self.path else ""
        return [name[len(folder) :] for name in engine.files if name.startswith(folder)]

    def is_file(self):
        return self.path in engine.files

    def is_dir(self):
        return not self.is_file() and bool(self._below())

    def iterdir(self):
        return iter([self / name for name in sorted({below.split("/")[0] for below in self._below()})])

    def joinpath(self, *parts):
        return File("/".join(part for part in (self.path, *map(str, parts)) if part))

    def __truediv__(self, part):
        return self.joinpath(part)

    def open(self, mode="r", *arguments, **options):
        if not self.is_file():
            raise FileNotFoundError(2, "the plugin has no such file", self.path)
        content = io.BytesIO(engine.files[self.path])
        return content if "b" in mode else io.TextIOWrapper(content, *arguments, **options)


class Resources(TraversableResources):
    def __init__(self, path):
        self.path = path

    def files(self):
        return File(self.path)


def reader(module):
    """Returns what reads the files beside a module."""
    is_package = engine.modules[module][0]
    folder = module if is_package else module.rpartition(".")[0]
    return Resources(folder.replace(".", "/"))
