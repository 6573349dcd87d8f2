"""A journal is asked about segment by segment, over the real gateway, until the last record that both have is found."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from engine.access.keys import Role
from engine.standby.line import Leader, Line
from engine.standby.parting import Away, NothingShared, leading, parting
from engine.standby.source import links
from tests.engine.gateway.ground import Ground, exchange
from tests.engine.lives import journaled, life
from tests.engine.standby.parted import files, parted


def line(ground: Ground) -> Line:
    """Return a line to an engine, with the key of a replica."""
    return Line(Leader(ground.url, ground.key(Role.REPLICA)["Authorization"].removeprefix("Bearer ")))


@pytest.mark.parametrize(("seed", "common", "segment_bytes_max"), [(1, 300, 20_000), (2, 40, 2_000), (3, 450, 1 << 20)])
async def test_the_last_common_group_is_found(tmp_path: Path, seed: int, common: int, segment_bytes_max: int) -> None:
    """Whether the journals part in the last segment or many before: both are alike up to there, and the next group is not."""
    old, new = parted(tmp_path, seed, common, segment_bytes_max)
    async with exchange(new / "journal") as ground:
        found = await parting(line(ground), "old", 0, old / "journal")
    assert found is not None
    assert found.leader_term == 1
    own, theirs = files(old), files(new)
    shared = [name for name in own if name <= found.segment.name]
    for name in shared[:-1]:
        assert own[name] == theirs[name]
    size = found.size
    assert own[found.segment.name][:size] == theirs[found.segment.name][:size]
    assert found.chain in dict(map(reversed, links(found.segment)))  # type: ignore[arg-type]
    assert own[found.segment.name][size : size + 40] != theirs[found.segment.name][size : size + 40]


async def test_one_that_is_only_behind_has_nothing_to_give(tmp_path: Path) -> None:
    """The place is its own end; an empty journal has no place."""
    old, new = parted(tmp_path)
    shutil.rmtree(old / "journal")
    async with exchange(new / "journal") as ground:
        assert await parting(line(ground), "old", 0, old / "journal") is None
        first, *_ = files(new)
        (old / "journal").mkdir(exist_ok=True)
        shutil.copy(new / "journal" / first, old / "journal" / first)
        found = await parting(line(ground), "old", 0, old / "journal")
        assert found is not None
        assert (found.segment.name, found.size) == (first, len(files(new)[first]))


async def test_two_exchanges_share_nothing(tmp_path: Path) -> None:
    """An address of somebody else's exchange costs nobody a journal."""
    old, new = parted(tmp_path)
    shutil.rmtree(old / "journal")
    journaled(old / "journal", life(7, 100)[1:])
    async with exchange(new / "journal") as ground:
        with pytest.raises(NothingShared, match="share no record"):
            await parting(line(ground), "old", 0, old / "journal")


async def test_who_leads_is_asked_without_following(tmp_path: Path) -> None:
    """A leader says its term; nobody, or one without the right key, says nothing; one of an earlier term stops for the asker's."""
    _, new = parted(tmp_path)
    async with exchange(new / "journal") as ground:
        said = await leading(line(ground), "old", 0)
        assert said is not None
        assert said.term == 1
        assert await leading(Line(Leader(ground.url, "tl_wrong_key")), "old", 0) is None
        with pytest.raises(Away, match="ENGINE_FOLLOW_KEY"):
            await parting(Line(Leader(ground.url, "tl_wrong_key")), "old", 0, new / "journal")
        assert ground.deposed == []
        assert await leading(line(ground), "old", 2) is None
        assert ground.deposed == [2]
        gone = line(ground)
    assert await leading(gone, "old", 0) is None
    with pytest.raises(Away):
        await parting(gone, "old", 0, new / "journal")
