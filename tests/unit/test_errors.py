import errno
import os

import pytest

from milepost.errors import run_step


def fails(number, name="results/models/c1.json"):
    def main():
        raise OSError(number, os.strerror(number), *([name] if name else []))

    return main


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EACCES, "Permission denied. What is stored is kept. `ls -ld` says whose it is"),
        (errno.EROFS, "Read-only file system. What is stored is kept. Its file system takes no writing now"),
        (errno.ENOSPC, "No space left on device. What is stored is kept. Make room"),
        (errno.EDQUOT, "your quota is used up"),
    ],
)
def test_a_disk_that_says_no_is_one_paragraph(number, words):
    with pytest.raises(SystemExit) as error:
        run_step(fails(number))
    said = str(error.value.code)
    assert said.startswith("StoreError: results/models/c1.json cannot be read or written: ")
    assert words in said
    assert "\n" not in said


@pytest.mark.parametrize(("number", "name"), [(errno.ENOENT, "x"), (errno.EACCES, None), (errno.EBADF, "x")])
def test_a_fault_of_ours_keeps_its_traceback(number, name):
    with pytest.raises(OSError, match=os.strerror(number)):
        run_step(fails(number, name))
