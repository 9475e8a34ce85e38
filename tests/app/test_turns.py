"""One pipeline for many: one at a time, people before sweeps, whoever waits can be stopped."""

import threading

import pytest

from deradiff.app.turns import Job, Sessions, Stopped, Turns

PATIENCE = 60


def test_one_at_a_time_and_people_before_sweeps() -> None:
    turns, order, inside = Turns(), list[str](), threading.Event()
    jobs = {name: Job() for name in ("sweep", "first", "second")}

    def work(name: str) -> None:
        with turns.taken(jobs[name], in_background=name == "sweep"):
            order.append(name)

    with turns.taken(Job()):
        inside.set()
        threads = []
        for name, job in jobs.items():
            threads.append(threading.Thread(target=work, args=(name,)))
            threads[-1].start()
            while not job.ahead:
                threading.Event().wait(0.01)
        assert order == []
    for thread in threads:
        thread.join(PATIENCE)
    assert order == ["first", "second", "sweep"]


def test_a_job_that_waits_can_be_stopped_and_leaves_the_queue() -> None:
    turns, job, raised = Turns(), Job(), list[BaseException]()

    def wait() -> None:
        try:
            with turns.taken(job):
                pass
        except Stopped as stop:
            raised.append(stop)

    with turns.taken(Job()):
        thread = threading.Thread(target=wait)
        thread.start()
        job.stop()
        thread.join(PATIENCE)
    assert len(raised) == 1
    with turns.taken(Job()):  # nobody is left before this one
        pass


def test_a_thread_that_has_its_turn_may_enter_again() -> None:
    turns = Turns()
    with turns.taken(Job()), turns.taken(Job()):
        pass


def test_a_visitors_new_job_stops_the_one_before_and_nobody_elses() -> None:
    sessions = Sessions()
    with sessions.job_of("anne") as first, sessions.job_of("bert") as other, sessions.job_of("anne") as second:
        assert (first.is_stopped, other.is_stopped, second.is_stopped) == (True, False, False)
        assert sessions.is_current("anne", second)
        sessions.stop("bert")
        assert other.is_stopped
        with pytest.raises(Stopped):
            other.check()
