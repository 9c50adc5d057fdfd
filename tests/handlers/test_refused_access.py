"""How long a connection is left alone whose provider takes nothing that we have to call it with."""

from handlers.refused_access import FIRST_SECONDS, LONGEST_SECONDS, RefusedAccess


def seconds(refused: RefusedAccess, version: int) -> float:
    """How long it is left alone; 0 where it may be called."""
    standing = refused.standing("con_1", version)
    return 0.0 if standing is None else standing[1]


async def test_it_is_left_alone_for_longer_each_time_until_there_is_something_newer():
    refused = RefusedAccess(scale=1)
    refused.heard("con_1", 1, "token_refused")
    for _ in range(5):  # those who had tried it at the same time
        refused.heard("con_1", 1, "token_refused")
    assert FIRST_SECONDS - 1 < seconds(refused, 1) <= FIRST_SECONDS
    assert seconds(refused, 2) == 0, "nobody has tried what is newer"
    assert refused.standing("con_2", 1) is None
    lasted = []
    for version in range(2, 20):
        refused.heard("con_1", version, "token_refused")
        lasted.append(round(seconds(refused, version)))
    assert lasted[:3] == [2 * FIRST_SECONDS, 4 * FIRST_SECONDS, 8 * FIRST_SECONDS]
    assert lasted[-1] == LONGEST_SECONDS == max(lasted)


async def test_what_was_taken_once_begins_anew():
    refused = RefusedAccess(scale=1)
    for version in (1, 2, 3):
        refused.heard("con_1", version, "token_refused")
    refused.taken("con_1")
    assert ("con_1" in refused, seconds(refused, 3)) == (False, 0)
    refused.heard("con_1", 4, "reauth_required")
    assert refused.standing("con_1", 4)[0] == "reauth_required"
    assert seconds(refused, 4) <= FIRST_SECONDS


async def test_a_password_that_is_refused_again_after_its_pause_is_left_alone_for_longer():
    """Its version stays the same."""
    refused = RefusedAccess(scale=0.0005)
    lasted = []
    for _ in range(3):
        refused.heard("con_1", 1, "reauth_required")
        lasted.append(seconds(refused, 1))
        while seconds(refused, 1):
            pass  # the loop's clock goes on by itself
    assert lasted[0] < 0.75 * lasted[1] < 0.75 * 0.75 * lasted[2]
