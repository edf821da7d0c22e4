"""Which turns are duels, against whom, and who stands where."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatrlhf.errors import ConflictError, VersionError
from chatrlhf.loop.duels import Duels
from storage import versions
from storage.database import open_database


class Resident:
    """Takes the place of `LiveVersion`."""

    def __init__(self, broken=()):
        self.asked, self.broken = [], broken

    def ensure_resident(self, name):
        self.asked.append(name)
        if name in self.broken:
            raise VersionError(f"{name} is broken.")


@pytest.fixture
def db(tmp_path):
    made = open_database(tmp_path / "x.db")
    for number in range(5):
        versions.register_version(made, f"v{number}", None, None, "", {}, "")
    versions.promote(made, "v2", "me")
    versions.promote(made, "v3", "me")
    yield made
    made.close()


@given(st.integers(2, 8), st.integers(0, 2**62))
def test_each_version_gets_half_of_the_places(replies, seed):
    names = Duels(None, Resident(), lambda: "v3", 0.2).between("v3", "v1", replies, seed)
    assert len(names) == replies
    assert abs(names.count("v3") - names.count("v1")) == replies % 2


def test_every_place_is_as_likely_for_each_version():
    duels = Duels(None, Resident(), lambda: "v3", 0.2)
    drawn = [duels.between("v3", "v1", 3, seed) for seed in range(2000)]
    for place in range(3):
        share = sum(names[place] == "v3" for names in drawn) / len(drawn)
        assert share == pytest.approx(0.5, abs=0.045)  # four deviations
    assert 0.45 < sum(names.count("v3") == 2 for names in drawn) / len(drawn) < 0.55


def test_the_opponents_are_older_usable_and_half_the_time_the_previous_one(db):
    versions.quarantine(db, "v0", "broken")
    duels = Duels(db, Resident(), lambda: "v3", 1.0)
    drawn = [(set(duels.versions_of(2, seed)) - {"v3"}).pop() for seed in range(400)]
    assert set(drawn) == {"v1", "v2"}  # v0 is broken, v4 newer
    # The previous one, v2, half the time and then half of the rest.
    assert drawn.count("v2") / len(drawn) == pytest.approx(0.75, abs=0.09)


def test_the_share_of_turns(db):
    duels = Duels(db, Resident(), lambda: "v3", 0.2)
    share = sum(bool(duels.versions_of(4, seed)) for seed in range(1000)) / 1000
    assert share == pytest.approx(0.2, abs=0.05)
    assert [duels.versions_of(4, seed) for seed in range(50)] == [
        duels.versions_of(4, seed) for seed in range(50)
    ]


def test_a_broken_opponent_ends_in_an_ordinary_turn_unless_a_duel_was_asked_for(db):
    duels = Duels(db, Resident(broken=("v0", "v1", "v2")), lambda: "v3", 1.0)
    assert duels.versions_of(4, 1) == ()
    with pytest.raises(VersionError):
        duels.versions_of(4, 1, wanted=True)


def test_the_oldest_version_has_no_opponent(db):
    duels = Duels(db, Resident(), lambda: "v0", 1.0)
    assert duels.versions_of(4, 1) == ()
    with pytest.raises(ConflictError, match="no version older than v0"):
        duels.versions_of(4, 1, wanted=True)
