"""Division by hash: adding wells, plates or perturbations later moves no other one."""

import hashlib


def hash_of(unit: str, *, salt: str = "") -> int:
    """Number that stands for a name, the same on every machine."""
    return int.from_bytes(hashlib.sha256(f"{salt}/{unit}".encode()).digest()[:8], "big")


def fold_of(unit: str, *, folds: int, salt: str = "") -> int:
    """Fold of an experimental unit (plate, well or perturbation), in ``[0, folds)``.

    Args:
        unit: Name of the unit that must stay whole, for example ``"BR00116991"``.
        folds: Number of folds.
        salt: Changes the assignment; use the name of the split.
    """
    return hash_of(unit, salt=salt) % folds
