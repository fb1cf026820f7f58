"""Plugins of folders: which files and tasks they have, and what is said of a folder that none can be made of."""

import contextlib
import io
import tempfile
import unittest
from pathlib import Path

from pcluster import _plugin, _source, build


class Folder(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="für alle ")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def file(self, path, text):
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")

    def refused(self, *more):
        said = io.StringIO()
        with contextlib.redirect_stderr(said):
            status = build.main([str(self.folder), "-o", str(self.folder / "out.wasm"), *more])
        self.assertEqual(status, 1)
        self.assertFalse((self.folder / "out.wasm").exists())
        return said.getvalue()


TASK = "from pcluster import task\n\n@task\ndef clean(item):\n    return item\n"


class Build(Folder):
    def test_the_files_of_an_author_are_taken_and_what_is_around_them_is_not(self):
        for path in ["clean.py", "pkg/__init__.py", "pkg/table.json", "notes.txt"]:
            self.file(path, "")
        for path in [
            "test_clean.py", "clean_test.py", "tests/x.py", ".git/x", ".venv/x.py", "build/x", "__pycache__/x.pyc",
            "chain.toml", "README.md", "old.wasm", "requirements.txt",
        ]:  # fmt: skip
            self.file(path, "")
        self.assertEqual(sorted(build.collect(self.folder)), ["clean.py", "notes.txt", "pkg/__init__.py", "pkg/table.json"])

    def test_what_lies_elsewhere_is_refused(self):
        self.file("a.py", TASK)
        for line in ["-r base.txt", "--constraint pins.txt", "-e .", "./vendored", "x @ file:///x.whl"]:
            self.file("requirements.txt", f"attrs==25.1.0\n{line}\n")
            with self.assertRaises(build.BuildError) as refused:
                build.install(self.folder)
            self.assertIn(f"names another file: `{line}`; write what it holds", str(refused.exception))
        (self.folder / "requirements.txt").unlink()
        (self.folder / "common").symlink_to(self.folder, target_is_directory=True)
        with self.assertRaisesRegex(build.BuildError, "common is a link to a folder; copy the folder"):
            build.collect(self.folder)

    def test_mistakes_are_told_with_their_place(self):
        for files, says in [
            ({}, "there is no task in the folder; mark a function with `@task`"),
            ({"a.py": "def f(:\n    pass\n"}, "a.py:1: "),
            ({"a.py": TASK, "b.py": TASK}, "b.py:4: there is another task `clean` at a.py:4; rename one"),
            ({"a.py": TASK.replace("def", "async def")}, "a.py:4: the task `clean` is async"),
            ({"a.py": TASK.replace("item)", ")")}, "a.py:4: the task `clean` takes no item"),
            ({"a.py": TASK.replace("clean", "größe")}, "a.py:4: the name `größe` has other letters"),
            ({"a.py": TASK, "fast.so": ""}, "which the sandbox cannot run; run the file as a native worker"),
        ]:
            with self.subTest(says=says):
                for path in self.folder.iterdir():
                    path.unlink()
                for path, text in files.items():
                    self.file(path, text)
                self.assertIn(says, self.refused())
        for path in self.folder.iterdir():
            path.unlink()
        self.file("a.py", TASK)
        self.assertIn("there is no b.py among the files", self.refused("--task-file", "b.py"))

    def test_a_missing_folder_is_told(self):
        said = io.StringIO()
        with contextlib.redirect_stderr(said):
            self.assertEqual(build.main([str(self.folder / "none"), "-o", "x.wasm"]), 1)
        self.assertIn("there is no folder", said.getvalue())


class Source(unittest.TestCase):
    def test_tasks_are_described_as_their_author_wrote_them(self):
        text = b'''
import pcluster as p
from pcluster import task as t

@t
def one(item: "list[int]") -> dict[str, int]:
    """Counts.

    More."""
    def inner():
        yield 1

@p.task
def two(text: str) -> str | None: ...

@t(init=load)
def three(text, table: Table) -> Optional[int]: ...

@t
def four(text) -> Iterator[dict[str, int]]:
    for word in text: yield word

@t
def five(item) -> None: ...

@other
def six(item): ...
'''
        found = [each.description for each in _source.tasks("a.py", text)]
        shown = [(each["name"], each["kind"], each["input"], each.get("output"), each.get("state")) for each in found]
        self.assertEqual(
            shown,
            [
                ("one", "map", "list[int]", "dict[str, int]", None),
                ("two", "filter", "str", "str", None),
                ("three", "filter", "", "int", "Table"),
                ("four", "generator", "", "dict[str, int]", None),
                ("five", "sink", "", None, None),
            ],
        )
        self.assertEqual(found[0]["doc"], "Counts.\n\nMore.")


class Numbers(unittest.TestCase):
    def test_numbers_are_written_as_leb128(self):
        for number, data in [(0, b"\0"), (127, b"\x7f"), (128, b"\x80\x01"), (624485, b"\xe5\x8e\x26")]:
            self.assertEqual(_plugin.unsigned(number), data)
            self.assertEqual(_plugin.read_unsigned(data, 0), (number, len(data)))
        for number, data in [(0, b"\0"), (63, b"\x3f"), (64, b"\xc0\0"), (-1, b"\x7f"), (17 << 20, b"\x80\x80\xc0\x08")]:
            self.assertEqual(_plugin.signed(number), data)

    def test_a_file_that_is_no_engine_is_refused(self):
        for data in [b"", b"\0asm\1\0\0\0", b"text"]:
            with self.assertRaises(_plugin.NotAnEngine):
                _plugin.about(data)
