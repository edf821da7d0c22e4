"""Running out of memory halves the rows, and is told in words at last."""

from __future__ import annotations

import pytest
import torch

from chatrlhf.errors import RoundError
from chatrlhf.training.row_limit import RowLimit, is_out_of_memory, memory_in_words, parts_of


def too_much():
    """What torch really raises: 4 EiB."""
    return torch.empty(1 << 62, dtype=torch.uint8)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_it_is_known_by_what_is_raised(error):
    assert is_out_of_memory(error)


def test_the_allocator_of_this_machine_is_understood():
    with pytest.raises(RuntimeError) as caught:
        too_much()
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize(
    "error", [RuntimeError("shape mismatch"), ValueError("out of memory"), KeyError("memory")]
)
def test_other_errors_are_not_taken_for_it(error):
    assert not is_out_of_memory(error)
    with pytest.raises(type(error)), memory_in_words():
        raise error
    with pytest.raises(type(error)):
        RowLimit(4).halving(4, lambda rows: (_ for _ in ()).throw(error))


def fitting(most, tried):
    def work(rows):
        tried.append(rows)
        return too_much() if rows > most else f"done by {rows}"

    return work


def test_rows_are_halved_until_they_fit_and_stay_so():
    tried = []
    limit = RowLimit()
    assert limit.halving(21, fitting(5, tried)) == "done by 5"
    assert tried == [21, 10, 5]
    assert limit.rows == 5
    assert limit.halving(21, fitting(5, tried)) == "done by 5"
    assert tried == [21, 10, 5, 5]


def test_what_fits_changes_nothing():
    limit = RowLimit(8)
    assert limit.halving(3, lambda rows: rows) == 3
    assert limit.rows == 8


def test_when_a_single_row_does_not_fit_people_are_told_what_to_do():
    tried = []
    with pytest.raises(RoundError, match=r"Memory ran out.*Lower ppo.max_new_tokens"):
        RowLimit(4).halving(4, fitting(0, tried))
    assert tried == [4, 2, 1]


def test_a_limit_only_falls():
    limit = RowLimit(8)
    limit.lower(12)
    assert limit.rows == 8
    limit.lower(3)
    assert limit.rows == 3


def test_parts_keep_order_and_miss_none():
    assert parts_of([4, 5, 6, 7, 8], 2) == [[4, 5], [6, 7], [8]]
    assert parts_of([4, 5], 9) == [[4, 5]]
