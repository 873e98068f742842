"""The second user is one: nothing of the owner's is theirs, and what is open to all they see."""

from pathlib import Path


def test_the_second_user_reads_what_is_open_and_nothing_else(intruder, shared):
    open_file, own = shared / "open", shared / "own"
    for path, mode in ((open_file, 0o644), (own, 0o600)):
        path.write_text("text")
        path.chmod(mode)
    assert intruder.reads(open_file)
    assert not intruder.reads(own)
    assert not intruder.reads(Path("/root"))
    assert intruder.python("import os; print(os.getuid())").stdout.strip() == str(intruder.uid)
