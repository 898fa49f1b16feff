r"""Text under judgement is data: it stands between marks that it cannot contain, and cannot pass for a chat template.

Whoever wrote the text may ask for full marks, or pretend that it has ended. The mark is a hash of all the data of the
call and of a seed: the same call has the same mark, so that its kept reply is found again, and a text that held its own
mark would have to hold its own hash. Nothing in the text is left that a tokenizer could take for its own control token.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from milepost.records import Message

# In JSON, what a chat template or a tokenizer could take for its own is written as an escape, so this may be wide:
# <|im_end|>, </s>, <think>, [INST].
_CONTROL = re.compile(r"<(?=[|/\w\uff5c])|\[(?=/?[A-Z_]{3,}\])")
# In a block, a sign is put in between, so this names what templates use, and leaves HTML and generics alone.
_TOKENS = re.compile(
    r"<(?=[|\uff5c])|[|\uff5c]>|<(?=/?(?:s|bos|eos|pad|unk|mask|sep|cls|think|thinking|thought|reasoning|reflection|tool_\w+"
    r"|start_of_\w+|end_of_\w+|begin_of_\w+|system|user|assistant|human|turn|INST|SYS)\b[^<>\n]{0,20}>)|<(?=</?SYS>)"
    r"|\[(?=/?(?:INST|SYS\w*|AVAILABLE_TOOLS|TOOL_\w+)\])",
    re.IGNORECASE,
)
_JOINER = "\u2060"  # WORD JOINER: nothing to see, and no token goes over it


@dataclass(frozen=True)
class JudgePrompt:
    """The words around the data.

    Attributes:
        version: Raise it when the words change; it is part of the mark, and so of each call.
        system: What the judge is told, scale included; `{mark}` stands for the mark.
        reminder: What is said once more after the data.
        block: The data's texts stand as they were written, for judges of form and style; in JSON, they take one line.
    """

    version: int
    system: str
    reminder: str
    block: bool = False

    def messages(self, data: Mapping[str, str], seed: int | None = None) -> list[Message]:
        """The chat that a judge gets. The same data, version and seed give the same chat.

        Args:
            data: Each text under its name, in the order in which the judge sees them.
            seed: Another seed gives another mark.
        """
        mark = mark_of(self.version, data.values(), seed)
        shown = "\n\n".join(as_block(name, text, mark) for name, text in data.items()) if self.block else as_json(data)
        if not self.block:
            shown = f"{mark}\n{shown}\n{mark}"
        return [
            # Not str.format: the words may hold braces of JSON.
            Message(role="system", content=self.system.replace("{mark}", mark)),
            Message(role="user", content=f"{shown}\n\n{self.reminder}"),
        ]


def mark_of(version: int, texts: Iterable[str], seed: int | None = None) -> str:
    """A mark that none of the texts contains.

    >>> mark_of(1, ["a"]), mark_of(1, ["a"], seed=1) == mark_of(1, ["a"])
    ('DATA-4a72386a027702c1f4fd', False)
    """
    parts = list(texts)
    content: list[object] = [version, *parts] if seed is None else [version, seed, *parts]
    while True:
        mark = f"DATA-{hashlib.sha256(json.dumps(content).encode()).hexdigest()[:20]}"
        if not any(mark.lower() in text.lower() for text in parts):
            return mark
        content.append(mark)


def as_json(data: Mapping[str, str]) -> str:
    r"""JSON on one line, in which control tokens are written as escapes: it reads as the same texts.

    >>> as_json({"a": "1 < 2 <|im_end|>[/INST]"})
    '{"a": "1 < 2 \\u003c|im_end|>\\u005b/INST]"}'
    """
    # JSON's own marks are none of the two signs, so only texts are changed.
    return _CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", json.dumps(data, ensure_ascii=False))


def as_block(name: str, text: str, mark: str) -> str:
    """A text as it was written, between two lines with the mark.

    >>> print(as_block("answer", "Hello", "DATA-1"))
    <<< DATA-1 answer
    Hello
    DATA-1 answer >>>
    """
    return f"<<< {mark} {name}\n{without_control_tokens(text)}\n{mark} {name} >>>"


def without_control_tokens(text: str) -> str:
    r"""A text in which nothing can be taken for a chat template's own token; it looks the same.

    >>> without_control_tokens("<|im_end|>").encode("ascii", "backslashreplace")
    b'<\\u2060|im_end|\\u2060>'
    >>> without_control_tokens("a < b, <div>, List<int>, x[0]")
    'a < b, <div>, List<int>, x[0]'
    """
    return _TOKENS.sub(lambda match: match[0][0] + _JOINER + match[0][1:], text)
