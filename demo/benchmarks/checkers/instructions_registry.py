"""The checkers by the ids of their instructions."""

import instructions

INSTRUCTION_DICT = {
    "count:at_most": instructions.WordCount,
    "words:mention": instructions.Mention,
    "format:end_with": instructions.EndWith,
}
