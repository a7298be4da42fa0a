"""Names for plates whose files say too little: folders tell apart what the files call alike."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from cellvim.errors import InputError
from cellvim.store import safe_name

# A date or a running number tells plates apart, but is no name of its own.
_NUMBER = re.compile(r"[\d._-]+")


def tell_apart(plates: Sequence[tuple[Path, str]]) -> list[str]:
    """Give every plate a name of its own: the one it has, where no other plate has it.

    Plates of one name get a folder's name, of the innermost folder that differs between all of them: alone if
    it is a name (``Week1_22123``), appended if it is a number (``Screen_1334``).

    Args:
        plates: Folder of each plate, and the name that its files give it.

    A name without a single letter that a file name may have gives way to that of the folder.
    """
    own = [_usable(name, root) for root, name in plates]
    counts = Counter(own)
    names = []
    for (root, _), name in zip(plates, own, strict=True):
        if counts[name] > 1:
            rivals = [path.resolve() for (path, _), other in zip(plates, own, strict=True) if other == name]
            label = _label(root.resolve(), rivals)
            name = _usable(f"{name}_{label}" if _NUMBER.fullmatch(label) else label, root)  # noqa: PLW2901
        names.append(name)
    return names


def _usable(name: str, root: Path) -> str:
    for candidate in (name, root.resolve().name):
        try:
            return safe_name(candidate)
        except InputError:
            continue
    return "plate"


def _label(root: Path, rivals: Sequence[Path]) -> str:
    depth = min(len(rival.parts) for rival in rivals)
    for above in range(1, depth):
        labels = {rival.parts[-above].lower() for rival in rivals}
        if len(labels) == len(rivals):
            return root.parts[-above]
    return "_".join(root.parts[1:])
