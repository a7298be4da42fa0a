"""Read the headers of all images of a plate, many at a time."""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from cellvim.ingest.images import Header, read_header
from cellvim.ingest.images.tiff import DamagedImageError
from cellvim.ingest.sources import ImagePart
from cellvim.progress import progress_bar

Finding = Header | str
"""What an image's header says, or what is wrong with it."""

# Enough that handing out work costs nothing beside it, few enough that a stop by the keyboard is felt at once.
BATCH = 128


def read_headers(images: Iterable[ImagePart], *, label: str, workers: int) -> dict[ImagePart, Finding]:
    """Read the header of every image once, in the order given.

    Args:
        images: Some may be named several times.
        label: For the progress bar.
        workers: Files looked at at the same time: on a network's disk, waiting is most of the work.
    """
    ordered = list(dict.fromkeys(images))
    batches = [ordered[start : start + BATCH] for start in range(0, len(ordered), BATCH)]
    findings: dict[ImagePart, Finding] = {}
    with ThreadPoolExecutor(workers) as pool, progress_bar(label, total=len(ordered)) as advance:
        futures = [pool.submit(_read_batch, batch) for batch in batches]
        try:
            for batch, future in zip(batches, futures, strict=True):
                findings.update(zip(batch, future.result(), strict=True))
                advance(len(batch))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    return findings


def _read_batch(images: Sequence[ImagePart]) -> list[Finding]:
    return [_read_one(image) for image in images]


def _read_one(image: ImagePart) -> Finding:
    try:
        return read_header(image)
    except DamagedImageError as error:
        return error.found
