"""Published folders: pages whose tables and figures are made from the small files that a study leaves.

``published.yaml`` lists the pages and what stands in them; a page marks the place of a table with two comment lines.
"""

from calibrated_sd.reports.published.build import PublishedCheck, build_published, check_published
from calibrated_sd.reports.published.listing import LISTING, Listing, load_listing, published_root

__all__ = [
    "LISTING",
    "Listing",
    "PublishedCheck",
    "build_published",
    "check_published",
    "load_listing",
    "published_root",
]
