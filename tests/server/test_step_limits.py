"""`max_inflight_requests`: what is over it waits, whoever asked."""

from tuili.server.serving.step_limits import StepLimit, Turn


class Model:
    """Notes what it was asked, and in which order what was forgotten."""

    def __init__(self):
        self.asked, self.forgotten = [], []

    def ask(self, name):
        self.asked.append(name)
        return Asked(self, name)


class Asked:
    def __init__(self, model, name):
        self.model, self.name = model, name

    def cancel(self):
        self.model.forgotten.append(self.name)


def turns(limit, model, names):
    made = {name: Turn(limit, lambda name=name: model.ask(name)) for name in names}
    for turn in made.values():
        turn.enter()
    return made


def test_what_is_over_the_limit_waits_its_turn():
    model = Model()
    made = turns(StepLimit(2), model, "abcd")
    assert model.asked == ["a", "b"]
    made["b"].over()
    made["a"].over()
    assert model.asked == ["a", "b", "c", "d"]


def test_who_is_not_wanted_any_more_makes_room_or_never_starts():
    model = Model()
    made = turns(StepLimit(1), model, "abc")
    made["b"].cancel()
    made["a"].cancel()
    made["a"].cancel()
    assert model.asked == ["a", "c"]
    assert model.forgotten == ["a"]


def test_requests_that_end_at_once_do_not_nest():
    limit, asked = StepLimit(1), []

    def refuse(turn_of, name):
        asked.append(name)
        turn_of[name].over()
        return Asked(Model(), name)

    made = {}
    for name in range(5000):
        made[name] = Turn(limit, lambda name=name: refuse(made, name))
    first = Turn(limit, lambda: Asked(Model(), "first"))
    first.enter()
    for turn in made.values():
        turn.enter()
    first.over()
    assert asked == list(range(5000))
