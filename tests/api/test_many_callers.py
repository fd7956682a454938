import asyncio
from pathlib import Path

from many_callers import run


def test_everybody_gets_the_right_answer_while_others_hang_up_and_send_rubbish(
    address: str, models: Path
) -> None:
    tally = asyncio.run(run(address, models, callers=32, seconds=1.5))

    assert tally.wrong == []
    assert tally.outcomes["right"] > 0
    assert tally.outcomes["gave up"] > 0
    assert sum(count for name, count in tally.outcomes.items() if "rubbish" in name) > 0
