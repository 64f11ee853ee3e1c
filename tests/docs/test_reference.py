"""The pages that are written by programs are what the programs write."""

from docs import command_line


def test_the_command_line_page_is_current():
    assert command_line.PAGE.read_text() == command_line.page(), "run python docs/command_line.py"
