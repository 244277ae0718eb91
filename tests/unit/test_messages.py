"""Every message has an entry on the page of messages, and every entry a message: told by the source itself."""

from collections import Counter

import cures


def test_each_message_has_its_cure():
    missing = cures.messages().keys() - set(cures.entries())
    assert not missing, f"write entries into {cures.PAGE}: python tests/cures.py prints them"


def test_each_entry_has_its_message():
    assert set(cures.entries()) - cures.messages().keys() == set()


def test_no_message_has_two_entries():
    assert [text for text, count in Counter(cures.entries()).items() if count > 1] == []


def test_messages_are_found_in_all_their_forms():
    """The collector itself: a literal, a name, a branch, a helper's return, a constant of the module."""
    found = cures.messages()
    assert "no input: the list of paths is empty" in found
    assert (
        "the input … has changed since … was made of it (…): run the job with fresh=True (--fresh) to make all of it again"
        in found
    )
    assert "… is no output of batchflow: … does not exist; name the folder or file that a run wrote" in found
    assert "no file matches … (looked in …)" in found
    assert "the worker process …" in found
    assert "the input … is gone: what was made of it stays" in found
