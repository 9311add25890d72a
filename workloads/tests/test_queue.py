"""The work queue: order, never twice at a time, later each time."""

import threading

from workloads.queue import Priority, WorkQueue


def drained(queue: WorkQueue) -> list[str]:
    names = []
    while not queue.is_idle():
        name = queue.get()
        assert name is not None
        names.append(name)
        queue.done(name)
    return names


def test_urgent_work_goes_first_and_a_name_is_there_once() -> None:
    queue = WorkQueue()
    for name in ("a", "b", "a"):
        queue.add(name, Priority.ROUTINE)
    queue.add("c")
    queue.add("b", Priority.URGENT)
    queue.add("b", Priority.ROUTINE)
    assert len(queue) == 3
    assert drained(queue) == ["b", "c", "a"]


def test_a_name_is_never_worked_on_twice_at_a_time_and_nothing_is_forgotten() -> None:
    queue = WorkQueue()
    queue.add("a")
    assert queue.get() == "a"
    queue.add("a", Priority.URGENT)
    queue.add("b")
    assert queue.get() == "b"
    queue.done("b")
    assert not queue.is_idle()
    queue.done("a")
    assert queue.get() == "a"


def test_a_failing_name_waits_longer_each_time_and_others_do_not() -> None:
    queue = WorkQueue()
    delays = [queue.retry("a") for _ in range(4)]
    assert delays == sorted(delays)
    assert delays[3] > 4 * delays[0] * 0.7
    assert max(queue.retry("a") for _ in range(20)) <= 60
    assert queue.retry("b") <= 0.5
    queue.succeeded("a")
    assert queue.retry("a") <= 0.5
    assert queue.retry("c", least=30) >= 30


def test_what_is_put_off_comes_when_it_is_due() -> None:
    queue = WorkQueue()
    queue.add_after("later", 0.05)
    assert queue.is_idle()
    assert queue.get() == "later"


def test_stopping_wakes_who_waits() -> None:
    queue = WorkQueue()
    found: list[str | None] = []
    waiting = threading.Thread(target=lambda: found.append(queue.get()))
    waiting.start()
    queue.stop()
    waiting.join(10)
    assert found == [None]
