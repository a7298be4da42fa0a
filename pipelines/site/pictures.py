"""Draw the pictures of the concept pages: `python -m pipelines.site.pictures`. The same bytes every time."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from cellvim.atomic import write_text
from cellvim.config import MaskingSettings
from cellvim.embed.tiling import tile_origins
from cellvim.evaluate.precision import average_precision
from cellvim.model.masking import draw_mask
from pipelines.site.drawing import Drawing, places

IMAGES = Path(__file__).parents[2] / "docs/images"
STAINS = ("teal", "orange", "violet")


def tokens() -> Drawing:
    """From a plate to the sequence of tokens of one tile."""
    art = Drawing(
        760,
        300,
        "A plate holds wells, a well fields, a field tiles; each channel of a tile is cut into patches",
    )
    art.text((20, 28), "plate", bold=True)
    for row, column in places(8, 12):
        chosen = (row, column) == (2, 4)
        art.disc((28 + column * 13, 48 + row * 13), 5, "teal" if chosen else "empty", rim="rim")
    art.line([(86, 74), (206, 60)], arrow=True)
    art.text((210, 28), "well, 4 fields", bold=True)
    for row, column in places(2, 2):
        art.box(
            (212 + column * 42, 42 + row * 42),
            (38, 38),
            "teal" if (row, column) == (0, 1) else "empty",
            rim="rim",
        )
    art.line([(294, 60), (342, 60)], arrow=True)
    art.text((346, 28), "field, tiles", bold=True)
    side, tile = 108, 36 * 1.15
    for top in tile_origins(side, round(tile)):
        for left in tile_origins(side, round(tile)):
            art.box((346 + left, 42 + top), (tile, tile), rim="blue")
    art.box((346, 42), (tile, tile), "blue", rim="blue")
    art.line([(458, 62), (506, 62)], arrow=True)
    art.text((510, 28), "tile, a grid of patches per channel", bold=True)
    for number, color in enumerate(STAINS):
        art.grid((512 + number * 80, 46), (4, 4), 18, [[color] * 4] * 4)
        art.text((546 + number * 80, 136), ("DNA", "ER", "Mito")[number], anchor="middle", color="soft")
    art.text(
        (20, 190),
        "the tokens of the tile, in memory: all channels of a place, then the next place",
        bold=True,
    )
    for index in range(24):
        place, channel = divmod(index, 3)
        left = 22 + index * 27 + place * 7
        art.box((left, 206), (24, 24), STAINS[channel], rim="rim")
        if channel == 1:
            art.text((left + 12, 250), f"{place // 4},{place % 4}", anchor="middle", color="soft")
    art.text((22, 278), "row, column", color="soft")
    return art


def scan() -> Drawing:
    """Two blocks: what is pooled, and which way the scan goes."""
    art = Drawing(
        760,
        330,
        "An even block pools each row and scans the rows both ways; an odd block does so with columns",
    )
    bands = ("teal", "orange", "violet", "blue")
    for at, title, is_turned in (
        (20, "even block: columns of a row are pooled", False),
        (400, "odd block: rows of a column", True),
    ):
        art.text((at, 28), title, bold=True)
        fills = [[bands[column if is_turned else row] for column in range(4)] for row in range(4)]
        art.grid((at, 46), (4, 4), 30, fills)
        art.text((at, 186), "16 tokens", color="soft")
        art.line([(at + 124, 104), (at + 164, 104)], arrow=True)
        art.text((at + 126, 94), "pool", color="soft")
        for number, color in enumerate(bands):
            art.box((at + 172, 46 + number * 30), (28, 28), color, rim="rim")
        art.text((at + 150, 186), "4 cells", color="soft")
        art.line([(at + 212, 50), (at + 212, 164)], arrow=True)
        art.line([(at + 226, 164), (at + 226, 50)], arrow=True)
        art.text((at + 236, 84), "forward", color="soft")
        art.text((at + 236, 104), "and back", color="soft")
        art.text((at + 236, 124), "scan", color="soft")
    art.text(
        (20, 226),
        "then every token gets the result of its cell, beside its own convolution, and is gated:",
        bold=True,
    )
    for number, color in enumerate(bands):
        art.box((20, 244 + number * 16), (13, 13), color, rim="rim")
    art.line([(40, 274), (84, 274)], arrow=True)
    fills = [[color] * 4 for color in bands]
    art.grid((92, 243), (4, 4), 16, fills)
    art.text((172, 268), "out = LayerNorm((o_0 + o_1) / 2) * SiLU(z),  o_i = y[cell of token] + D_i v")
    art.text(
        (172, 290),
        "14 steps per channel instead of 196 for a grid of 14 x 14; both axes after two blocks",
        color="soft",
    )
    return art


def masking() -> Drawing:
    """A patch step and a channel step, drawn by the code that draws them in training."""
    art = Drawing(
        760, 300, "A patch step hides three quarters of each channel, a channel step hides whole channels"
    )
    settings = (MaskingSettings(channel_steps=0.0), MaskingSettings(channel_steps=1.0))
    for at, title, chosen in (
        (20, "patch step: 75 % in each channel", settings[0]),
        (400, "channel step: whole stains", settings[1]),
    ):
        mask = draw_mask(chosen, batch=1, channels=3, grid=(6, 6), seed=0, step=3)
        art.text((at, 28), title, bold=True)
        for number, color in enumerate(STAINS):
            hidden = mask.hidden[0, number]
            fills = [
                ["empty" if bool(hidden[row, column]) else color for column in range(6)] for row in range(6)
            ]
            art.grid((at + number * 112, 46), (6, 6), 17, fills)
            name = ("DNA", "ER", "Mito")[number]
            art.text((at + number * 112, 170), f"{name}, {_share(hidden)}", color="soft")
    art.text(
        (20, 214),
        "The encoder meets the coloured patches only. A small decoder gets its tokens, and for every hidden",
        color="ink",
    )
    art.text(
        (20, 234),
        "patch a mask token with its place and stain; the loss is of hidden patches alone.",
        color="ink",
    )
    art.text(
        (20, 270),
        "Grey: hidden. Drawn by cellvim.model.masking.draw_mask(seed=0, step=3).",
        color="soft",
    )
    return art


def cross_fitting() -> Drawing:
    """Five folds of controls, each judged in a space that was fitted to the other four."""
    art = Drawing(760, 290, "Each fold of controls is ranked in a space that was fitted to the other folds")
    art.text((20, 28), "negative controls of a plate, in five folds by a hash of the well", bold=True)
    for fit in range(5):
        top = 58 + fit * 36
        art.text((20, top + 16), f"fit {fit + 1}", color="soft")
        for fold in range(5):
            is_judged = fold == fit
            for each in range(3):
                color, rim = ("card", "red") if is_judged else ("teal", "rim")
                art.disc((90 + fold * 72 + each * 20, top + 12), 7, color, rim=rim)
        art.line([(450, top + 12), (500, top + 12)], arrow=True)
        art.text((508, top + 16), f"ranks fold {fit + 1} against treated wells")
    art.disc((28, 262), 7, "teal", rim="rim")
    art.text((42, 266), "the normalisation is fitted to these", color="soft")
    art.disc((300, 262), 7, "card", rim="red")
    art.text((314, 266), "these are judged there, as unseen as every treated well", color="soft")
    return art


def ranking() -> Drawing:
    """Average precision of one query, and of a collapsed embedding, as the code computes them."""
    art = Drawing(
        760, 260, "A ranked list of replicates and controls, the precision at each replicate, and their mean"
    )
    relevant = np.array([True, False, True, False, False, True, False, False])
    _ranked(art, 20, "a well asks for its replicates", np.linspace(0.9, 0.2, 8), relevant)
    order = np.argsort(relevant, kind="stable")
    _ranked(art, 146, "all wells alike: ties count as the worst order", np.zeros(8), relevant[order])
    art.disc((510, 240), 7, "teal", rim="rim")
    art.text((524, 244), "replicate", color="soft")
    art.disc((610, 240), 7, "empty", rim="rim")
    art.text((624, 244), "control", color="soft")
    return art


def _ranked(art: Drawing, top: float, title: str, similarity: np.ndarray, relevant: np.ndarray) -> None:
    art.text((20, top + 10), title, bold=True)
    found, terms = 0, []
    for rank, is_relevant in enumerate(relevant, start=1):
        at = (40 + (rank - 1) * 58, top + 42)
        art.disc(at, 15, "teal" if is_relevant else "empty", rim="rim")
        art.text((at[0], at[1] + 34), f"{rank}", anchor="middle", color="soft")
        if is_relevant:
            found += 1
            terms.append(f"{found}/{rank}")
            art.text((at[0], at[1] + 52), terms[-1], anchor="middle", color="teal")
    value = average_precision(similarity, relevant)
    art.text((510, top + 40), f"AP = mean({', '.join(terms)})")
    art.text((510, top + 62), f"= {value:.2f}", bold=True)


def splits() -> Drawing:
    """What is held out together: a plate, a perturbation, or nothing but the well."""
    art = Drawing(
        760, 270, "Held-out plates and held-out perturbations keep units whole; random wells do not"
    )
    rng = np.random.default_rng(3)
    random = rng.permuted(np.arange(24) < 6).reshape(6, 4)
    panels: tuple[tuple[str, Callable[[int, int], bool], str, str], ...] = (
        ("a plate held out", lambda _, column: column == 2, "a new plate", "teal"),
        ("a perturbation held out", lambda row, _: row == 2, "a new compound", "teal"),
        (
            "random wells",
            lambda row, column: bool(random[row, column]),
            "leaky: same plate, same compound",
            "red",
        ),
    )
    for number, (title, is_held_out, asks, color) in enumerate(panels):
        at = (20 + number * 250, 62)
        art.text((at[0], 28), title, bold=True)
        art.text((at[0], 50), "plates, left to right", color="soft")
        fills = [
            ["orange" if is_held_out(row, column) else "empty" for column in range(4)] for row in range(6)
        ]
        art.grid(at, (6, 4), 24, fills)
        art.text((at[0] + 106, 130), "rows:", color="soft")
        art.text((at[0] + 106, 148), "perturbations", color="soft")
        art.text((at[0], 228), asks, color=color)
    art.box((20, 244), (14, 14), "orange", rim="rim")
    art.text((42, 256), "judged", color="soft")
    art.box((110, 244), (14, 14), "empty", rim="rim")
    art.text((132, 256), "learned from", color="soft")
    return art


def resume() -> Drawing:
    """A killed ingest, and what the next one finds."""
    art = Drawing(
        760,
        270,
        "Units with a record are kept, what is under a temporary name is removed, and the unit is made again",
    )
    art.text((20, 28), "killed at the third field", bold=True)
    art.text((20, 158), "the same command again", bold=True)
    states = (("A01/1", "kept"), ("A01/2", "kept"), ("A02/1", "made again"), ("A02/2", "made"))
    for number, (name, fate) in enumerate(states):
        left = 20 + number * 184
        is_done, is_cut = number < 2, number == 2
        art.box(
            (left, 44),
            (150, 44),
            "teal" if is_done else "none",
            rim="red" if is_cut else "rim",
            dashed=not is_done,
        )
        label = name if is_done else f".tmp-...-{name[-1]}" if is_cut else name
        art.text((left + 75, 71), label, anchor="middle", color="card" if is_done else "soft")
        art.text(
            (left + 75, 108),
            "record with its token" if is_done else "no record",
            anchor="middle",
            color="soft",
        )
        art.box((left, 174), (150, 44), "teal", rim="rim")
        art.text((left + 75, 201), name, anchor="middle", color="card")
        art.text((left + 75, 238), fate, anchor="middle", color="soft")
    art.text(
        (20, 260),
        "A token is a hash of the sources and of every setting that changes the pixels.",
        color="soft",
    )
    return art


def _share(hidden: torch.Tensor) -> str:
    return f"{float(hidden.float().mean()):.0%}"


PICTURES: dict[str, Callable[[], Drawing]] = {
    "concept-tokens": tokens,
    "concept-scan": scan,
    "concept-masking": masking,
    "concept-cross-fitting": cross_fitting,
    "concept-ranking": ranking,
    "concept-splits": splits,
    "concept-resume": resume,
}


def draw_all(folder: Path = IMAGES) -> None:
    """Write every picture as NAME.svg."""
    for name, draw in PICTURES.items():
        write_text(folder / f"{name}.svg", draw().svg())


if __name__ == "__main__":
    draw_all()
