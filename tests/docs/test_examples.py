"""The examples of README, the tutorials and one how-to run as they are printed."""

import os
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
RUNNABLE = [*sorted((DOCS / "tutorials").glob("*.md")), DOCS / "how-to" / "tune.md"]
PAGES = [ROOT / "README.md", *RUNNABLE]
BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PORTS = ("8000", "8001", "8002")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def with_free_ports(text):
    """The page with ports that nobody uses here."""
    for port in PORTS:
        text = text.replace(port, free_port())
    return text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_examples_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    blocks = BLOCK.findall(with_free_ports(page.read_text()))
    assert blocks
    names = {"__name__": page.stem}
    servers = []
    try:
        for language, code in blocks:
            if language == "python":
                exec(compile(code, str(page), "exec"), names)
            elif code.rstrip().endswith("&"):
                servers.append(subprocess.Popen(shlex.split(code.rstrip().rstrip("&"))))
            else:
                subprocess.run(code, shell=True, check=True)
    finally:
        for server in servers:
            server.terminate()
    assert [server.wait(30) for server in servers] == [0] * len(servers)


@pytest.mark.parametrize("page", sorted(ROOT.glob("*.md")) + sorted(ROOT.glob("docs/**/*.md")))
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)#:]+)\)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []
