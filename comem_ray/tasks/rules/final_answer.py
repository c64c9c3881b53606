r"""The final answer in a text that may reason first: the content of its last box, or the whole text, without its dress.

Models write `\boxed{\text{Paris}}`, `\boxed{1{,}200}`, `**Paris**` or `$5$` where an exact rule wants "Paris", "1,200"
and "5". The dress comes off before a rule compares, so that the rules themselves stay those of their authors:

    commands that only set type   \text{..}, \textbf{..}, \mathrm{..}, \fbox{..}, \left, \displaystyle, ...
    spaces of LaTeX               \, \; \: \! ~ \quad; between the digits of one number they vanish
    braces, escapes               1{,}200, \%, \$, \_
    marks and accents             5^\circ, CO_2, 19^{\text{th}}, \'e, \times
    delimiters of maths           $..$, \(..\), \[..\]; the dollar of "$5 and $10" stays
    emphasis of markdown          **Paris**, *Paris*, __Paris__, `Paris`; the stars of "M*A*S*H" stay

What says something, such as \frac{1}{2}, stays as it is. The rules of the paper's authors (paper.py) do not come here:
they read a text as the authors' scorer does.
"""

from __future__ import annotations

import re
import unicodedata

_BOX = re.compile(r"\\(?:boxed|fbox|framebox)\s*\{")

_SET_TYPE = re.compile(
    r"\\{1,2}(?:text(?:bf|it|rm|sf|tt|sc|up|sl|md|normal)?|math(?:rm|bf|it|sf|tt|cal|bb|frak|scr|normal|ord|rel|bin)"
    r"|emph|underline|uline|boldsymbol|bm|pmb|mbox|hbox|fbox|framebox|boxed|operatorname\*?|ensuremath|bold)\s*\{"
)
_WITH_OPTION = re.compile(r"\\{1,2}(?:textcolor|colorbox|color|href|fontsize|hyperlink)\s*\{")
_NEXT_ARGUMENT = re.compile(r"\s*\{")
_SWITCH = re.compile(
    r"\\{1,2}(?:left|right|[bB]ig{1,2}[lr]?|displaystyle|textstyle|scriptstyle|limits|bfseries|itshape|normalfont|rm|bf|it"
    r"|tiny|small|normalsize|large|Large|LARGE|huge|Huge|centering|noindent)(?![A-Za-z])\s?"
)
_SPACE_COMMAND = (
    r"(?:\\{1,2}(?:[,;:> ]|(?:quad|qquad|thinspace|medspace|thickspace|enspace|space|nobreakspace)(?![A-Za-z]) ?))"
)
_SPACES = re.compile(rf"{_SPACE_COMMAND}+")
_IN_NUMBER = re.compile(rf"(?<=\d)(?:{_SPACE_COMMAND}|~)+(?=\d{{3}}(?!\d))")
_NO_SPACE = re.compile(r"\\{1,2}(?:!|negthinspace(?![A-Za-z]))|\\{1,2}[hv]space\*?\{[^{}]*\}")
_LINE_BREAK = re.compile(r"\\\\(?![A-Za-z]|\\)")
_ESCAPED = re.compile(r"\\{1,2}([%$&#_{}*`])")

_DEGREES = re.compile(r"\^\s*\{?\s*\\{1,2}circ(?![A-Za-z])\s*\}?|\\{1,2}(?:degree|textdegree|circ)(?![A-Za-z])")
_ORDINAL = re.compile(r"(?<=\d)\^\s*\{?\s*(st|nd|rd|th)(?![A-Za-z])\s*\}?")
_SUBSCRIPT = re.compile(r"(?<=[A-Za-z)])_(?:\{([^{}]*)\}|(\d|[A-Za-z](?![A-Za-z])))")
_GROUP = re.compile(r"(?<![A-Za-z}^_\\\]])\{([^{}]*)(?<!\\)\}")
_ACCENT = re.compile(
    r"\\([`'^\"~=.])\s*(?:\{\s*(\\?[A-Za-z])\s*\}|(\\[ij](?![A-Za-z])|[A-Za-z]))|\\([cvuHkr])\{([A-Za-z])\}"
)
_COMBINING = {
    "`": "\u0300", "'": "\u0301", "^": "\u0302", '"': "\u0308", "~": "\u0303", "=": "\u0304", ".": "\u0307",
    "c": "\u0327", "v": "\u030c", "u": "\u0306", "H": "\u030b", "k": "\u0328", "r": "\u030a",
}  # fmt: skip
_LETTERS = {
    "ss": "ß", "ae": "æ", "AE": "Æ", "oe": "œ", "OE": "Œ", "aa": "å", "AA": "Å", "o": "ø", "O": "Ø", "l": "ł", "L": "Ł",
}  # fmt: skip
_SYMBOLS = _LETTERS | {
    "times": "×", "cdot": "·", "div": "÷", "pm": "±", "approx": "≈", "sim": "~", "le": "≤", "leq": "≤", "ge": "≥",
    "geq": "≥", "to": "→", "rightarrow": "→", "infty": "∞", "ldots": "...", "dots": "...", "cdots": "...", "pi": "π",
    "alpha": "α", "beta": "β", "gamma": "γ", "mu": "μ", "Omega": "Ω", "pounds": "£", "euro": "€", "percent": "%",
    "celsius": "°C", "prime": "′", "textendash": "–", "textemdash": "—",
}  # fmt: skip
_SYMBOL = re.compile(rf"\\{{1,2}}({'|'.join(sorted(_SYMBOLS, key=len, reverse=True))})(?![A-Za-z])(\{{\}}| (?=\w))?")

# Pandoc's rule for dollars: the first has no space behind it, the last none before it and no digit behind it.
_DOLLARS = re.compile(
    r"(?<!\\)\$\$(.{1,2000}?)(?<!\\)\$\$|(?<![\\$\w])\$(?![\s$])((?:\\.|[^$\\]){1,400}?)(?<!\s)\$(?![\d$])", re.S
)
_BRACKETS = re.compile(r"\\\((.{1,2000}?)\\\)|\\\[(.{1,2000}?)\\\]", re.S)
_FENCE = re.compile(r"^```(?:[a-z]*\n)?\s*(.*?)\s*```$", re.S)
_LETTER = r"[^\W_\u2e80-\u9fff\uac00-\ud7af]"  # Chinese, Japanese and Korean put no spaces around emphasis
_EMPHASIS = re.compile(
    rf"(?<!{_LETTER})(?<![*_`\\])(\*\*\*|\*\*|\*|___|__|_|``|`)(?=[^\s*_`])((?:(?!\n\s*\n).){{0,400}}?[^\s*_`\\])\1"
    rf"(?![*_`])(?!{_LETTER})",
    re.S,
)


def final_answer(text: str) -> str:
    r"""The content of the last closed `\boxed{...}`, empty where the box is; the whole text where there is no box.

    Either without its dress.
    """
    inside = boxed(text)
    return without_dress(text) if inside is None else inside


def boxed(text: str) -> str | None:
    r"""Content of the last `\boxed{...}` (or `\fbox`) that is closed, without its dress; None where there is none."""
    for box in reversed(list(_BOX.finditer(text))):
        content = _braced(text, box.end())
        if content is not None:
            return without_dress(_maths(content)).strip()
    return None


def without_dress(text: str) -> str:
    """A whole answer without delimiters of maths and what only sets type; an answer without dress as it stands."""
    fence = _FENCE.match(text)
    plain = _BRACKETS.sub(lambda match: _maths(match.group(1) or match.group(2)), fence.group(1) if fence else text)
    plain = _DOLLARS.sub(lambda match: _maths(match.group(1) or match.group(2) or ""), plain)
    plain = _commands(plain).replace("{,}", ",")
    while (shorter := _EMPHASIS.sub(lambda match: match.group(2), plain)) != plain:
        plain = shorter
    return _ESCAPED.sub(r"\1", plain)


def _maths(text: str) -> str:
    """What stands in maths as plain text: no commands that set type, no spaces of LaTeX, no braces that only group."""
    plain = _SUBSCRIPT.sub(lambda match: match.group(1) or match.group(2) or "", _commands(text))
    while (shorter := _GROUP.sub(r"\1", plain)) != plain:
        plain = shorter
    return re.sub(r"\s+", " ", _IN_NUMBER.sub("", plain).replace("~", " ")).strip()


def _commands(text: str) -> str:
    """`text` with the characters that its commands stand for, and the arguments of those that only set type."""
    if "\\" not in text:
        return text
    plain = _DEGREES.sub("°", _SWITCH.sub("", _accents(_NO_SPACE.sub("", text))))
    plain = _unset(_unset(_SYMBOL.sub(_symbol, plain), _WITH_OPTION, 1), _SET_TYPE)
    plain = _ORDINAL.sub(r"\1", plain)
    plain = _LINE_BREAK.sub(" ", _SPACES.sub(" ", _IN_NUMBER.sub("", plain)))
    return re.sub(r"(?<=\d) +(?=°)", "", plain)


def _unset(text: str, command: re.Pattern[str], options: int = 0) -> str:
    """`text` with the last argument in the place of every `command`, from the inside out; `options` come before it."""
    for match in reversed(list(command.finditer(text))):
        start = match.end()
        content = _braced(text, start)
        for _ in range(options):
            following = None if content is None else _NEXT_ARGUMENT.match(text, start + len(content) + 1)
            start = start if following is None else following.end()
            content = None if following is None else _braced(text, start)
        if content is not None:
            text = text[: match.start()] + content + text[start + len(content) + 1 :]
    return text


def _symbol(match: re.Match[str]) -> str:
    """The character of a command; the space behind a letter's command belongs to it."""
    name, rest = match.group(1), match.group(2) or ""
    return _SYMBOLS[name] + (" " if rest == " " and name not in _LETTERS else "")


def _accents(text: str) -> str:
    """Letters in the place of accents and letters: \\'e becomes é."""

    def letter(match: re.Match[str]) -> str:
        mark = match.group(1) or match.group(4)
        base = (match.group(2) or match.group(3) or match.group(5)).removeprefix("\\")
        return unicodedata.normalize("NFC", base + _COMBINING[mark])

    return _ACCENT.sub(letter, text)


def _braced(text: str, start: int) -> str | None:
    """What stands between `start` and the brace that closes it; None where none does. Escaped braces do not count."""
    depth, i = 1, start
    while i < len(text):
        if text[i] == "\\":
            i += 2
            continue
        depth += (text[i] == "{") - (text[i] == "}")
        if not depth:
            return text[start:i]
        i += 1
    return None
