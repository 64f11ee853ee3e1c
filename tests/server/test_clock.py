"""A clock that is set forward or back moves no deadline, delay or verdict."""

import re
from pathlib import Path

import tuili

SOURCE = Path(tuili.__file__).parent
WALL = re.compile(r"\btime\.time(_ns)?\(|datetime\.(now|utcnow)\(|\btime\.localtime\(")
# Where the time of day is what is wanted: shown to people, or a moment that they wrote down.
MEANT = {
    "server/serving/answering.py": "last_inference of the statistics extension",
    "server/loading/elastic.py": "the hour of the day, for the forecast of the load",
    "server/serving/ensemble_steps.py": "last_inference of the statistics extension",
    "server/telemetry/access_log.py": "when a request came, for people",
    "server/tracing/spans.py": "spans have the time of day",
    "server/repository/lifecycle.py": "how long ago the file system says a version was changed",
    "server/control/conductor.py": "entries of the journal, and start_at of a plan",
    "server/http/jobs.py": "what is written down of jobs is read after a restart",
    "server/http/job_runs.py": "as jobs.py",
    "server/http/job_replay.py": "how old what is found after a restart is",
    "server/jobs/journal.py": "as job_replay.py",
}


def test_the_time_of_day_decides_nothing_in_the_server():
    found = {
        str(path.relative_to(SOURCE))
        for folder in ("server", "backends")
        for path in (SOURCE / folder).rglob("*.py")
        if WALL.search(path.read_text(encoding="utf-8"))
    }
    assert found == MEANT.keys()
