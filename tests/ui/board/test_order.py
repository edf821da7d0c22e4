"""The order that keys build, run by Node against orders worked out by hand."""

import json
import shutil
import subprocess

import pytest

from ui.board.board import ASSETS_DIR

NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="needs Node")

# Each key is what a person presses; the answer is the order after each key.
PRESS = """
const positions = JSON.parse(process.argv[1]);
let order = EMPTY;
const shown = [];
for (const key of JSON.parse(process.argv[2])) {
  if (key === "=") order = toggleTie(order);
  else if (key === "Enter") order = restEqual(order, positions);
  else if (key === "U") order = takeBack(order);
  else if (key === "0") order = allEqual(positions);
  else if (key.includes("@")) order = putAt(order, ...key.split("@").map(Number), positions);
  else order = place(order, Number(key), positions);
  shown.push(orderText(order) + (isComplete(order, positions) ? "!" : ""));
}
console.log(JSON.stringify(shown));
"""


def press(keys: str, replies: int = 4) -> list[str]:
    source = (ASSETS_DIR / "order.js").read_text(encoding="utf-8") + PRESS
    arguments = [json.dumps(list(range(1, replies + 1))), json.dumps(keys.split())]
    command = [str(NODE), "--input-type=module", "--eval", source, "--", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return json.loads(done.stdout)


def test_three_keys_rank_four_replies():
    assert press("2 1 4") == ["2", "2>1", "2>1>4>3!"]


def test_one_key_ranks_two_replies_and_seven_rank_eight():
    assert press("2", replies=2) == ["2>1!"]
    assert press("8 7 6 5 4 3 2", replies=8)[-2:] == ["8>7>6>5>4>3", "8>7>6>5>4>3>2>1!"]


def test_a_tie_joins_the_group_before():
    assert press("1 = 2 3") == ["1", "1", "1=2", "1=2>3>4!"]


def test_the_reply_that_followed_by_itself_can_still_be_tied():
    assert press("2 1 3 = 4")[-1] == "2>1>3=4!"


def test_a_second_tie_key_takes_the_first_back():
    assert press("1 = = 2")[-1] == "1>2"


def test_a_tie_key_needs_a_reply_before_it():
    assert press("= 1") == ["", "1"]


def test_enter_ties_the_rest_behind():
    assert press("3 Enter") == ["3", "3>1=2=4!"]
    assert press("3 1 Enter")[-1] == "3>1>2=4!"


def test_enter_does_nothing_without_a_best():
    assert press("Enter") == [""]


def test_all_bad_ties_all():
    assert press("0") == ["1=2=3=4!"]


def test_pressing_a_number_twice_takes_it_out():
    assert press("1 2 1") == ["1", "1>2", "2"]


def test_undo_takes_the_last_key_back_and_what_followed_from_it():
    assert press("1 2 3 U U U") == ["1", "1>2", "1>2>3>4!", "1>2", "1", ""]


def test_undo_takes_back_a_pending_tie_first():
    assert press("1 = U 2")[-1] == "1>2"


def test_a_number_after_a_complete_order_begins_a_new_one():
    assert press("1 2 3 4") == ["1", "1>2", "1>2>3>4!", "4"]


def test_a_number_that_no_reply_has_does_nothing():
    assert press("7 1") == ["", "1"]


def test_dragging_gives_any_place_first_and_the_last_follows():
    assert press("3@4 1@1 2@2") == ["?>?>?>3", "1>?>?>3", "1>2>4>3!"]


def test_a_reply_dragged_to_a_taken_place_moves_the_others_to_the_nearest_gap():
    assert press("1@1 2@1") == ["1", "2>1"]
    assert press("1@4 2@4")[-1] == "?>?>1>2"


def test_within_a_complete_order_dragging_reorders():
    assert press("1 2 3 4@1") == ["1", "1>2", "1>2>3>4!", "4>1>2>3!"]
    assert press("1 2 3 1@3")[-1] == "2>3>1>4!"
    assert press("1 = 2 3 4@1")[-1] == "4>1=2>3!"


def test_keys_fill_the_gaps_that_dragging_left():
    assert press("3@4 1 2") == ["?>?>?>3", "1>?>?>3", "1>2>4>3!"]
    assert press("3@4 Enter") == ["?>?>?>3", "1=2=4>3!"]
    assert press("3@2 1 = 4") == ["?>3", "1>3", "1>3", "1>3=4>2!"]
