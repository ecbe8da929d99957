"""How commands end: the exit code, and one line on stderr that says why."""

import exit_codes
import pytest


class BadThing(ValueError):
    """Bad input."""


@pytest.mark.parametrize(("error", "code", "said"), [
    (None, 0, ""),
    (BadThing("x is bad:\nname\ta new --workdir"), 2, "error: x is bad: name a new --out\n"),
    (ValueError("of\nsomething"), 1, "failed: ValueError: of something\n"),
    (OSError(28, "No space left"), 1, "failed: OSError: [Errno 28] No space left\n"),
    (MemoryError(), 1, "failed: MemoryError: \n"),
    (RuntimeError("x" * 600), 1, f"failed: RuntimeError: {'x' * 500}\n"),
    (KeyboardInterrupt(), 1, "stopped; half of it is there\n"),
])  # fmt: skip
def test_every_end_has_its_code_and_at_most_one_line(capsys, error, code, said):
    def work():
        print("done")
        if error:
            raise error

    found = exit_codes.run(work, (BadThing,), "half of it is there", {"--workdir": "--out"})
    assert (found, *capsys.readouterr()) == (code, "done\n", said)


def test_a_mistake_of_ours_is_not_hidden():
    def work():
        raise KeyError("what nobody foresaw")

    with pytest.raises(KeyError):
        exit_codes.run(work, (BadThing,), "")
