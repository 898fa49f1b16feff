"""Apply a tokenizer's chat template; runs in the server's environment, so that it is the server's own library.

Standard input: `{"tokenizer": folder, "template": file or text or null, "chats": [messages, ...]}`. Output: a JSON list.
"""

import json
import sys
from pathlib import Path


def main() -> None:
    """Render each chat with the opening of the answer."""
    # Here, not above: this module is also imported where it is not installed.
    from transformers import AutoTokenizer

    request = json.load(sys.stdin)
    tokenizer = AutoTokenizer.from_pretrained(request["tokenizer"])
    template = request["template"]
    if template and Path(template).is_file():
        template = Path(template).read_text()
    rendered = [
        tokenizer.apply_chat_template(chat, chat_template=template, tokenize=False, add_generation_prompt=True)
        for chat in request["chats"]
    ]
    json.dump(rendered, sys.stdout)


if __name__ == "__main__":
    main()
