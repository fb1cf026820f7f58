"""The module `_bz2` in the sandbox: `bz2` can be imported, as packages do that never use it, and says when it is used."""

WHY = 'the sandbox has no bzip2: use gzip, or a native worker, with `exec` and `isolation = "worker"`'


class BZ2Compressor:
    def __init__(self, compresslevel=9):
        raise OSError(WHY)


class BZ2Decompressor:
    eof, needs_input, unused_data = False, True, b""

    def decompress(self, data, max_length=-1):
        raise OSError(WHY)
