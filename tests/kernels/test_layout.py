"""Order of the sequence and cells of the tokens, for full grids and for kept tokens."""

import pytest
import torch

from cellvim_kernels import Grid, Kept, Layout, Order

CPU = torch.device("cpu")


def tables(layout: Layout) -> tuple[list[int], list[int]]:
    sequence, cell = layout.tables(1, CPU)
    assert torch.equal(cell[0], cell[1])
    return sequence[0].tolist(), cell[0, 0].tolist()


@pytest.mark.parametrize(
    ("order", "sequence", "cell"),
    [
        ("rwc", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], [0, 1, 0, 1, 0, 1, 2, 3, 2, 3, 2, 3]),
        ("wrc", [0, 1, 6, 7, 2, 3, 8, 9, 4, 5, 10, 11], [0, 1, 0, 1, 2, 3, 2, 3, 4, 5, 4, 5]),
        ("crw", [0, 2, 4, 6, 8, 10, 1, 3, 5, 7, 9, 11], [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]),
        ("cwr", [0, 6, 2, 8, 4, 10, 1, 7, 3, 9, 5, 11], [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]),
    ],
)
def test_two_rows_of_three_patches_with_two_channels(
    order: Order, sequence: list[int], cell: list[int]
) -> None:
    assert tables(Grid(2, 3, 2, order)) == (sequence, cell)


def test_cell_of_a_token_in_channel_first_order_is_row_times_channels_plus_channel() -> None:
    rows, cols, channels = 3, 4, 5
    _, cell = tables(Grid(rows, cols, channels, "rwc"))
    assert cell == [(t // (cols * channels)) * channels + t % channels for t in range(rows * cols * channels)]


def test_unpooled_tokens_are_cells_of_their_own() -> None:
    grid = Grid(2, 3, 2, "wrc", is_pooled=False)
    assert tables(grid)[1] == list(range(12))
    kept = Kept.from_ids(torch.tensor([[1, 4, 7]]), grid)
    assert tables(kept)[1] == [0, 1, 2]
    assert kept.cells == 3


@pytest.mark.parametrize("order", ["rwc", "wrc", "crw", "cwr"])
def test_keeping_everything_is_the_grid(order: Order) -> None:
    grid = Grid(2, 3, 2, order)
    kept = Kept.from_ids(torch.arange(12)[None], grid)
    assert tables(kept) == tables(grid)
    assert kept.cells == grid.cells


def test_kept_tokens_follow_the_order_of_the_grid_and_empty_rows_keep_their_cells() -> None:
    # Of a 3 x 2 grid of one channel: nothing of row 1.
    kept = Kept.from_ids(torch.tensor([[0, 1, 5]]), Grid(3, 2, 1, "rwc"))
    assert tables(kept) == ([0, 1, 2], [0, 0, 2])
    assert kept.bins[0].count.tolist() == [[2, 0, 1]]
    # By columns: column 0 holds token 0; column 1 holds tokens 1 and 5.
    turned = Kept.from_ids(torch.tensor([[0, 1, 5]]), Grid(3, 2, 1, "wrc"))
    assert tables(turned) == ([0, 1, 2], [0, 1, 1])
    assert turned.bins[0].count.tolist() == [[1, 2]]


def test_published_backward_rows_count_from_the_wrong_end() -> None:
    # Row 0 keeps three tokens and row 2 keeps one; read from the end, the published ids are 0, 0, 0, 2 again.
    ids = torch.tensor([[0, 1, 2, 6]])
    kept = Kept.from_ids(ids, Grid(3, 3, 1, "rwc"), backward_rows="published")
    assert kept.bins[0].cell.tolist() == [[0, 0, 0, 2]]
    assert kept.bins[1].cell.tolist() == [[0, 2, 2, 2]]


@pytest.mark.parametrize("order", ["rwc", "wrc", "crw", "cwr"])
def test_published_backward_rows_are_right_if_nothing_is_hidden(order: Order) -> None:
    kept = Kept.from_ids(torch.arange(24)[None], Grid(3, 4, 2, order), backward_rows="published")
    assert torch.equal(kept.bins[0].cell, kept.bins[1].cell)


def test_the_divisor_is_the_count_or_the_length_of_the_pooled_row() -> None:
    ids = torch.tensor([[0, 1, 5]])
    assert Kept.from_ids(ids, Grid(3, 2, 1, "rwc")).divisor is None
    assert Kept.from_ids(ids, Grid(3, 2, 1, "rwc"), divisor="width").divisor == 2
    assert Kept.from_ids(ids, Grid(3, 2, 1, "wrc"), divisor="width").divisor == 3
