"""Bytes of a mail to text, whatever charset they claim.

Only charsets that mail really uses are honoured, named in one closed table: Python's codec registry also knows
``unicode_escape``, ``idna`` or ``zip``, imports modules by the name it is given and raises in five different ways.
Labels are read as browsers do (WHATWG Encoding Standard, section 4.2): ``latin1`` means windows-1252, ``gb2312`` means
GB 18030, ``ks_c_5601`` means windows-949. An unknown or missing label is guessed: UTF-8 where the bytes are valid
UTF-8, windows-1252 where not, ISO-2022-JP where they escape into it. ISO-2022-JP and EUC-JP have the rows of NEC that
index jis0208 of that standard adds to JIS X 0208 and Python leaves out. Nothing here raises, and nothing here answers
U+0000 or a lone surrogate.
"""

import codecs
import re

_LABELS = {
    "ascii": "usascii ascii ansix341968 iso646us us 646 7bit ansi",
    "utf-8": "utf8 unicode11utf8 utf8mb4 utf8mb3 unicode20utf8 cp65001 xunicode20utf8",
    "utf-7": "utf7 unicode11utf7 cp65000",
    "utf-16": "utf16 ucs2 unicode iso10646ucs2 csunicode",
    "utf-16-le": "utf16le",
    "utf-16-be": "utf16be",
    "utf-32": "utf32 ucs4",
    "cp1252": "iso88591 iso8859 88591 latin1 l1 cp819 ibm819 windows1252 cp1252 xcp1252 xansi iso885911987 isoir100",
    "cp1250": "windows1250 cp1250 xcp1250",
    "cp1251": "windows1251 cp1251 xcp1251 win1251",
    "cp1253": "windows1253 cp1253",
    "cp1254": "windows1254 cp1254 iso88599 latin5 l5 88599",
    "cp1255": "windows1255 cp1255",
    "cp1256": "windows1256 cp1256",
    "cp1257": "windows1257 cp1257",
    "cp1258": "windows1258 cp1258",
    "iso8859-2": "iso88592 latin2 l2 88592 isoir101",
    "iso8859-3": "iso88593 latin3 l3",
    "iso8859-4": "iso88594 latin4 l4",
    "iso8859-5": "iso88595 cyrillic",
    "iso8859-6": "iso88596 arabic iso88596e iso88596i asmo708",
    "iso8859-7": "iso88597 greek ecma118 elot928",
    "iso8859-8": "iso88598 hebrew iso88598i iso88598e logical visual",
    "iso8859-10": "iso885910 latin6 l6",
    "cp874": "iso885911 tis620 windows874 cp874 dos874 tis62025330",
    "iso8859-13": "iso885913 latin7",
    "iso8859-14": "iso885914 latin8",
    "iso8859-15": "iso885915 latin9 l9 iso885915euro",
    "iso8859-16": "iso885916 latin10",
    "koi8-r": "koi8r koi8 koi cskoi8r",
    "koi8-u": "koi8u koi8ru",
    "cp437": "ibm437 cp437 437",
    "cp850": "ibm850 cp850 850",
    "cp852": "ibm852 cp852",
    "cp855": "ibm855 cp855",
    "cp858": "ibm858 cp858 ibm00858",
    "cp862": "ibm862 cp862 dos862",
    "cp866": "ibm866 cp866 866",
    "mac-roman": "macroman macintosh xmacroman mac xmacwestern",
    "mac-cyrillic": "maccyrillic xmaccyrillic xmacukrainian",
    "mac-latin2": "maccentraleurope xmacce macce",
    "cp932": "shiftjis sjis xsjis mskanji cp932 windows31j ms932 windows932 csshiftjis",
    "euc_jp": "eucjp xeucjp ujis extendedunixcodepackedformatforjapanese",
    "iso2022_jp_ext": "iso2022jp csiso2022jp iso2022jp1 iso2022jp2 iso2022jp3 iso2022jpms cp50220 cp50221 cp50222",
    "gb18030": "gb2312 gbk gb18030 cp936 ms936 windows936 xgbk euccn chinese csgb2312 gb23121980 gb2312charset",
    "hz": "hzgb2312 hz",
    "big5hkscs": "big5 big5hkscs cnbig5 xxbig5 cp950 big5tw csbig5",
    "cp949": "euckr ksc56011987 ksc56011989 ksc5601 cp949 windows949 uhc korean kseuckr 5601 cseuckr ms949",
    "iso2022_kr": "iso2022kr csiso2022kr",
    "johab": "johab",
}
_CODEC_OF = {label: codec for codec, labels in _LABELS.items() for label in labels.split()}
_NOT_IN_A_LABEL = re.compile(r"[^a-z0-9]")
_UNWANTED = re.compile("[\x00\ud800-\udfff]")
_WINDOWS_1252_HOLES = re.compile("[\x81\x8d\x8f\x90\x9d]")
_OF_JIS_X_0208 = {"iso2022_jp_ext", "euc_jp"}
_NEC_ROWS = "postledger.nec-rows"


def codec_named(label: str | None) -> str | None:
    """The Python codec for a charset label of a mail, or None where the label is unknown."""
    return _CODEC_OF.get(_NOT_IN_A_LABEL.sub("", label[:64].lower())) if label else None


def decode(data: bytes, label: str | None = None) -> str:
    """Text of *data* under the charset *label*; bytes that are none in it become U+FFFD. Never raises."""
    codec = codec_named(label)
    if codec in {None, "ascii"} and b"\x1b$" in data and data.isascii():
        codec = "iso2022_jp_ext"
    if codec is None or codec in {"ascii", "utf-8"}:
        return clean(_utf8(data, lenient=codec == "utf-8"))
    if codec.startswith("iso2022") and not data.isascii():
        return clean(_utf8(data))
    return clean(_with(codec, data))


def clean(text: str) -> str:
    """*text* with U+0000 and lone surrogates, which neither JSON nor PostgreSQL can hold, shown as U+FFFD."""
    return _UNWANTED.sub("\ufffd", text) if "\x00" in text or not _encodable(text) else text


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def raw_bytes(text: str) -> bytes:
    """The bytes that ``surrogateescape`` made *text* of."""
    return text.encode("utf-8", "surrogateescape")


def decode_raw(text: str) -> str:
    """A header value whose 8-bit bytes are surrogates: UTF-8 (RFC 6532), else as an unlabelled text is guessed."""
    if text.isascii():
        if "\x1b$" in text or "\x1b(" in text:  # ISO-2022-JP needs no eighth bit; old Japanese mailers sent it bare
            return clean(_with("iso2022_jp_ext", text.encode("ascii")))
        return clean(text) if "\x00" in text else text
    return clean(_utf8(raw_bytes(text)))


def _utf8(data: bytes, *, lenient: bool = False) -> str:
    if data.startswith(codecs.BOM_UTF8):
        data = data[3:]
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        pass
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return _with("utf-16", data)
    return data.decode("utf-8", "replace") if lenient and _mostly_utf8(data) else _windows_1252(data)


def _mostly_utf8(data: bytes) -> bool:
    """A text cut or damaged in places stays UTF-8; one without a single valid sequence was labelled wrongly."""
    return any(char > "\x7f" for char in data.decode("utf-8", "ignore"))


def _windows_1252(data: bytes) -> str:
    try:
        return data.decode("cp1252")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _with(codec: str, data: bytes) -> str:
    errors = _NEC_ROWS if codec in _OF_JIS_X_0208 else "replace"
    try:
        return _windows_1252(data) if codec == "cp1252" else data.decode(codec, errors)
    except (
        UnicodeError,
        LookupError,
        ValueError,
    ):  # utf-16 without a byte order mark's pair, a codec left out of a build
        return data.decode("utf-8", "replace")


def _nec_row(error: UnicodeError) -> tuple[str, int]:
    """What browsers show for two bytes that Python's codec has no character for: circled digits, IBM's kanji for names."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    pair = error.object[error.start : error.start + 2]
    # EUC-JP's codec blames the first byte alone; ISO-2022-JP's blames one byte only where it reads single bytes.
    if len(pair) == 2 and (pair[0] > 0x80 or error.end - error.start == 2):
        try:
            return _shift_jis(pair).decode("cp932"), error.start + 2
        except ValueError:  # no such row, or nothing in it
            pass
    return "\ufffd", error.end


def _shift_jis(pair: bytes) -> bytes:
    """Row and cell of JIS X 0208, as ISO-2022-JP or, with the eighth bits set, EUC-JP write them, in Shift_JIS.

    Raises ValueError where they are none.
    """
    base = 0xA1 if pair[0] > 0x80 else 0x21
    row, cell = pair[0] - base, pair[1] - base
    if not (0 <= row < 94 and 0 <= cell < 94):
        raise ValueError(pair)
    lead = row // 2 + (0x81 if row < 62 else 0xC1)
    trail = cell + 0x9F if row % 2 else cell + 0x40 + (cell >= 63)
    return bytes((lead, trail))


codecs.register_error(_NEC_ROWS, _nec_row)
