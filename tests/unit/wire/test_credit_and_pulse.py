"""Credit, heartbeats and the table of sessions: plain values in and out, with a clock that the test moves."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from swarm_agents.resource.peers import DEAD, SUSPECTED
from swarm_agents.resource.sessions import REMEMBERED, Sessions
from swarm_agents.wire.credit import GRACE, Account, Window, offer
from swarm_agents.wire.pulse import MOST_PATIENCE, Patience, Pulse
from swarm_agents.wire.schema import Answer

SIZES = st.integers(0, 1000)


@given(st.integers(1, 20), st.integers(0, 2000), st.lists(st.tuples(st.booleans(), SIZES), max_size=60))
def test_a_sender_never_exceeds_its_credit_but_by_one_large_task(tasks, size, steps):
    window, out = Window(tasks, size), []
    for send, amount in steps:
        if send and window.fits(amount):
            window.take(amount)
            out.append(amount)
        elif not send and out:
            window.give(out.pop(0))
        assert window.used == len(out) <= tasks
        assert window.used_bytes == sum(out)
        assert sum(out) <= size or len(out) == 1


def test_what_was_sent_under_a_former_grant_is_taken_for_a_while():
    account = Account()
    account.renew(10, 1000, 0.0)
    for _ in range(5):
        account.take(10)
    account.renew(2, 1000, 1.0)
    assert account.admits(10, 1.0 + GRACE / 2)
    assert not account.admits(10, 1.0 + GRACE * 2)


def test_credit_shrinks_to_one_task_for_who_takes_no_answers():
    common = {"room": 100, "room_bytes": 1 << 20, "sharers": 1, "most": 512, "answers": 1000}
    assert offer(Window(), answer=0.0, owed=0, **common)[0] == 100
    assert offer(Window(), answer=100.0, owed=0, **common)[0] == 16
    assert offer(Window(), answer=100.0, owed=1000, **common)[0] == 1


def test_a_silent_peer_is_suspected_and_then_dead_by_missed_heartbeats():
    pulse, now = Pulse(1.0, 0.0), 0.0
    missed = []
    for _ in range(DEAD):
        now += 1.0
        missed.append(pulse.missed(now))
    assert missed == [1, SUSPECTED, 3, 4, DEAD]
    pulse.heard(now)
    assert pulse.missed(now) == 0


def test_time_in_which_this_side_was_stopped_is_not_held_against_the_peer():
    pulse = Pulse(1.0, 0.0)
    assert pulse.missed(100.0) <= SUSPECTED


def make_sessions():
    cancelled = []
    sessions = Sessions(window=8, keep_bytes=1000, cancel=cancelled.append)
    session = sessions.open(7, "client", "c", "", lambda *_: None, 0.0)
    return sessions, session, cancelled


def test_a_late_copy_is_recognised_for_the_stated_time_and_not_in_another_session():
    sessions, session, _ = make_sessions()
    sessions.expect(session, (7, 1), 10)
    assert sessions.answered((7, 1), Answer((7, 1)), [b"x"], 1) is not None
    assert sessions.answered((7, 1), Answer((7, 1)), [b"y"], 1) is None, "the first answer counts"
    sessions.finish(session, (7, 1), 1.0)
    assert sessions.is_finished(session, (7, 1))
    other = sessions.open(8, "hub", "h", "n", lambda *_: None, 0.0)
    assert not sessions.is_finished(other, (7, 1))
    session.seen = other.seen = 1.0 + REMEMBERED
    sessions.expire(1.0 + REMEMBERED - 1)
    assert sessions.is_finished(session, (7, 1))
    sessions.expire(1.0 + REMEMBERED + 1)
    assert not sessions.is_finished(session, (7, 1))
    assert session.account.used == session.owed == sessions.kept_bytes == 0


def test_answers_wait_while_their_receiver_acknowledges_none():
    sessions, session, _ = make_sessions()
    session.room = 100
    entries = []
    for n in range(4):
        sessions.expect(session, (7, n), 0)
        entries.append(sessions.answered((7, n), Answer((7, n)), [], 60))
    assert [session.takes(entry) for entry in entries] == [True, False, False, False]
    assert session.flying == 60
    sessions.finish(session, (7, 0), 1.0)
    assert session.takes(entries[1])
    assert list(session.waiting) == [(7, 2), (7, 3)]


def test_patience_follows_the_slowest_round_trip_of_late_between_its_bounds():
    patience = Patience(0.8, 0.0, first=0.01)
    assert patience.seconds == 0.8, "on a quiet machine a silence means something soon"
    patience.learn(0.5, 1.0)
    patience.learn(0.01, 1.1)
    assert 1.9 < patience.seconds <= 2.0, "in a crowd it does not"
    patience.learn(60.0, 1.2)
    assert patience.seconds == MOST_PATIENCE, "for ever is too long"
    for second in range(2, 400):
        patience.learn(0.01, float(second))
    assert patience.seconds == 0.8, "the crowd has gone"


def test_patience_begins_by_what_the_greeting_took_and_bears_rare_heartbeats():
    assert Patience(0.8, 0.0, first=0.4).seconds == 1.6
    assert Patience(50.0, 0.0).seconds == 50.0


def test_a_silence_counts_only_while_somebody_listens():
    pulse = Pulse(0.2, 0.0)
    assert pulse.silent(0.2) == 0.2
    assert pulse.silent(100.0) < 0.61, "this side was stopped, for all but the last of it"
    pulse.heard(100.1)
    assert abs(pulse.silent(100.3) - 0.2) < 1e-9
