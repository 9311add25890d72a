"""A search box within one tab of a page."""

from dataclasses import dataclass

from opencrane.console.listing import FilterBar


@dataclass(slots=True)
class TabSearch(FilterBar):
    """A FilterBar that stays in its tab.

    Attributes:
        keep_tab: the tab's key.
    """

    keep_tab: str = ""

    def __post_init__(self) -> None:
        FilterBar.__post_init__(self)
        self.keep = self.keep | {"tab": self.keep_tab}

    @property
    def path(self) -> str:
        return f"{self.request.path}?tab={self.keep_tab}"
