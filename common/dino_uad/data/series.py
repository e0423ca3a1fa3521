"""Which of several stacks in a DICOM folder an entry of a data list means."""

from __future__ import annotations

from dino_uad.transforms import DicomReader, require_one_stack


def chosen_series(items: list[dict], series: str | None, check: bool = True) -> list[dict]:
    """The entries, those of DICOM images with ``series`` in them, by which ``LoadScand`` chooses a stack.

    Args:
        items: a data list.
        series: shell pattern for a series' number or description, or for the words with which the error lists it.
        check: whether each is looked at now.

    Raises:
        ValueError: a folder holds several stacks, and not exactly one of them matches.
    """
    reader = DicomReader()
    chosen = []
    for item in items:
        if reader.verify_suffix(item["image"]):
            if check:
                require_one_stack(item["image"], series)
            item = item if series is None else {**item, "series": str(series)}
        chosen.append(item)
    return chosen
