"""The images in a store, or on a list of addresses, by the rules of a search."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence

from clipsearch.images.extensions import ImageNames
from clipsearch.images.files import ImageFile, Rules
from clipsearch.images.ignoring import Patterns
from clipsearch.images.member_rules import MemberRules
from clipsearch.images.object_store import ObjectStore
from clipsearch.images.other_files import IN_A_STORE
from clipsearch.images.web_files import WebFiles
from clipsearch.system.addresses import is_web


def images_at(
    place: bytes, root: bytes, rules: Rules, patterns: Sequence[Patterns], passed_over: Callable[[str], None]
) -> Iterator[ImageFile]:
    """Yield the images at and below an address, in the order of their paths' bytes.

    Args:
        place: the address.
        root: that of the root in which it lies.
        rules: which files are taken.
        patterns: what is left out.
        passed_over: as for `finding.find_images`.

    Raises:
        StoreError: it cannot be listed, or not to its end.
    """
    members = MemberRules(root, rules, patterns, passed_over=passed_over, where=IN_A_STORE, named=is_web(place))
    if is_web(place):
        yield from WebFiles(place).images(members.wanted)
        return
    store = ObjectStore(place)
    alone = None if store.is_folder() or not ImageNames().fits(os.path.basename(place)) else store.file(place)
    any_there = False
    for file in store.files() if alone is None else ():
        any_there = True
        if (found := members.wanted(file)) is not None:
            yield found
    if alone is None and not any_there and not store.is_folder():
        alone = store.file(place)
    if alone is not None:
        yield alone
