"""Where an error of a step stands among the answers of an ensemble with steps that answer often."""

from types import SimpleNamespace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tuili.errors import InternalError
from tuili.server.protocol.messages import InferRequest, InferResponse, InputTensor, OutputTensor
from tuili.server.scheduling.dag import Dag, Step
from tuili.server.serving.ensemble_fits import NO_FITS
from tuili.server.serving.ensemble_stream import StreamRun
from tuili.server.telemetry.statistics import Statistics


def step(name, needs, makes):
    return Step(name, "", {t: t for t in needs}, {t: t for t in makes}, (), name)


class Steps:
    """Steps whose calls are answered by the test, one by one; `open` has those under way."""

    types = dict.fromkeys("xtuy", "INT32")
    version, fits, each, lists, cache = "1", NO_FITS, {}, frozenset(), None

    def __init__(self, dag, many):
        self.dag, self.many = dag, frozenset(many)
        self.statistics = Statistics("e", "1")
        self.open = {}
        self.forgotten = 0

    def call(self, at, request, reply):
        return self.call_many(at, request, lambda answer, final: reply(answer))

    def call_many(self, at, request, reply):
        (value,) = {t.data.item() for t in request.inputs}
        assert (at, value) not in self.open
        self.open[at, value] = reply
        return SimpleNamespace(cancel=lambda: self.open.pop((at, value)))

    def tell(self, key, value, *, final=True):
        """A step under way answers with a value, an error or (None) nothing."""
        answer = value
        if value is not None and not isinstance(value, InternalError):
            name = next(iter(self.dag.steps[key[0]].makes))
            data = np.array([value], np.int32)
            answer = InferResponse("m", "1", [OutputTensor(name, "INT32", (1,), data)])
        reply = self.open.pop(key) if final else self.open[key]
        reply(answer, final)

    def respond(self, request, value_of, absent):
        data = value_of("y")
        return [OutputTensor("y", "INT32", data.shape, data)]

    def forget(self, run):
        self.forgotten += 1


def begun(parts):
    """A request of value 99, and what is said of it."""
    told = []

    def reply(answer, final):
        assert not parts.forgotten or final
        assert not told or not told[-1][1], "something came after the end"
        told.append((value_of(answer), final))

    def value_of(answer):
        if isinstance(answer, InferResponse):
            return int(answer.outputs[0].data.item())
        return answer if answer is None else str(answer)

    data = np.array([99], np.int32)
    run = StreamRun(parts, InferRequest("e", [InputTensor("x", "INT32", (1,), data)]), reply, 1)
    run.start({"x": data})
    return told


TOKENS = Dag("e", ["x"], ["y"], [step("write", "x", "t"), step("read", "t", "y")])


@given(st.data())
def test_what_comes_before_an_error_arrives_first_then_the_error_once(data):
    """`write` answers n times, then fails or ends; any `read` may fail; in any order of events."""
    parts = Steps(TOKENS, [0])
    told = begun(parts)
    count, fails = data.draw(st.integers(0, 5)), data.draw(st.booleans())
    goes_on = fails and data.draw(st.booleans())  # after an error that is not its last word
    bad = data.draw(st.sets(st.integers(0, 4)))
    written = 0
    while parts.open:
        key = data.draw(st.sampled_from(sorted(parts.open)))
        if key[0] == 1:
            parts.tell(key, InternalError(f"r{key[1]}") if key[1] in bad else key[1])
        elif written < count:
            parts.tell(key, written, final=False)
            written += 1
        elif fails:
            parts.tell(key, InternalError("write"), final=not goes_on)
        else:
            parts.tell(key, None)
    first = min([n for n in bad if n < count], default=count)
    values = [value for value, _ in told]
    error = f"r{first}" if first < count else "write" if fails else None
    assert values == [*range(first), error][: None if error or values[-1:] == [None] else -1]
    assert [final for _, final in told] == [False] * (len(told) - 1) + [True]
    assert parts.forgotten == 1


def test_a_partner_goes_on_until_it_has_said_what_comes_before_an_error():
    """The nth answers of two steps meet; one fails at its third, and never ends by itself."""
    pair = Dag("e", ["x"], ["y"], [step("a", "x", "t"), step("b", "x", "u"), step("j", "tu", "y")])
    parts = Steps(pair, [0, 1])
    told = begun(parts)
    for n in (0, 1):
        parts.tell((0, 99), n, final=False)
    parts.tell((0, 99), InternalError("third"), final=False)
    assert list(parts.open) == [(1, 99)], "the failed one is cancelled, its partner is not"
    for n in (0, 1):
        parts.tell((1, 99), n, final=False)
    parts.tell((2, 1), 11)
    assert told == []
    parts.tell((2, 0), 10)
    assert told == [(10, False), (11, False), ("third", True)]
    assert not parts.open


def test_an_error_of_what_all_answers_need_ends_at_once():
    """It stands before all of them."""
    both = Dag("e", ["x"], ["y"], [step("a", "x", "t"), step("b", "x", "u"), step("j", "tu", "y")])
    parts = Steps(both, [0])
    told = begun(parts)
    parts.tell((0, 99), 0, final=False)
    parts.tell((1, 99), InternalError("for all"))
    assert told == [("for all", True)]
    assert not parts.open
