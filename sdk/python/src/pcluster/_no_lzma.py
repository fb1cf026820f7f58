"""The module `_lzma` in the sandbox: `lzma` can be imported, as packages do that never use it, and says when it is used."""

WHY = 'the sandbox has no LZMA: use gzip, or a native worker, with `exec` and `isolation = "worker"`'

CHECK_NONE, CHECK_CRC32, CHECK_CRC64, CHECK_SHA256, CHECK_ID_MAX, CHECK_UNKNOWN = 0, 1, 4, 10, 15, 16
FILTER_LZMA1, FILTER_LZMA2, FILTER_DELTA = 0x4000000000000001, 0x21, 3
FILTER_X86, FILTER_POWERPC, FILTER_IA64, FILTER_ARM, FILTER_ARMTHUMB, FILTER_SPARC = 4, 5, 6, 7, 8, 9
FORMAT_AUTO, FORMAT_XZ, FORMAT_ALONE, FORMAT_RAW = 0, 1, 2, 3
MF_HC3, MF_HC4, MF_BT2, MF_BT3, MF_BT4 = 3, 4, 18, 19, 20
MODE_FAST, MODE_NORMAL = 1, 2
PRESET_DEFAULT, PRESET_EXTREME = 6, 1 << 31


class LZMAError(Exception):
    pass


class LZMACompressor:
    def __init__(self, format=FORMAT_XZ, check=-1, preset=None, filters=None):
        raise LZMAError(WHY)


class LZMADecompressor:
    check, eof, needs_input, unused_data = CHECK_UNKNOWN, False, True, b""

    def __init__(self, format=FORMAT_AUTO, memlimit=None, filters=None):
        pass

    def decompress(self, data, max_length=-1):
        raise LZMAError(WHY)


def is_check_supported(check):
    return False


def _encode_filter_properties(filter):
    raise LZMAError(WHY)


def _decode_filter_properties(filter_id, encoded_props):
    raise LZMAError(WHY)
