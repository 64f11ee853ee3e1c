"""Trace and log settings."""

import logging

import pytest

from tuili.errors import InvalidArgument, Unsupported
from tuili.server.settings import LogSettings, TraceSettings


def test_a_model_overrides_the_global_setting_until_cleared():
    traces = TraceSettings()
    traces.update({"trace_rate": "5"})
    assert traces.update({"trace_rate": 7, "trace_level": ["TIMESTAMPS"]}, "m") == {
        **traces.of(),
        "trace_rate": "7",
        "trace_level": ["TIMESTAMPS"],
    }
    assert traces.of()["trace_rate"] == "5"
    assert traces.update({"trace_rate": None, "trace_level": []}, "m") == traces.of()
    assert traces.update({"trace_rate": None})["trace_rate"] == "1000"


@pytest.mark.parametrize(
    ("settings", "kind", "text"),
    [
        ({"trace_rat": "1"}, InvalidArgument, "Did you mean 'trace_rate'"),
        ({"trace_level": ["LOUD"]}, InvalidArgument, "trace_level must be of"),
        ({"trace_rate": "-1"}, InvalidArgument, "Unable to parse"),
        ({"trace_file": "/x"}, Unsupported, "can not be updated"),
    ],
)
def test_trace_settings_that_are_refused(settings, kind, text):
    with pytest.raises(kind, match=text):
        TraceSettings().update(settings)


@pytest.mark.parametrize(
    ("settings", "level"),
    [
        ({"log_verbose_level": 1}, logging.DEBUG),
        ({}, logging.INFO),
        ({"log_info": False}, logging.WARNING),
        ({"log_info": False, "log_warning": False}, logging.ERROR),
    ],
)
def test_log_settings_are_applied(settings, level):
    assert LogSettings().update(settings) | settings == LogSettings().get() | settings
    assert logging.getLogger("tuili").level == level


@pytest.mark.parametrize(
    ("settings", "kind", "text"),
    [
        ({"log_warnings": True}, InvalidArgument, "Did you mean 'log_warning'"),
        ({"log_info": 1}, InvalidArgument, "non-boolean as boolean: got 1"),
        ({"log_verbose_level": -1}, InvalidArgument, "non-unsigned-integer"),
        ({"log_format": "xml"}, InvalidArgument, "invalid argument for log_format, got: xml"),
        ({"log_file": "x"}, Unsupported, "can not be updated through network protocol"),
    ],
)
def test_log_settings_that_are_refused(settings, kind, text):
    with pytest.raises(kind, match=text):
        LogSettings().update(settings)
