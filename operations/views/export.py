"""The buttons below a list that start its export."""

import datetime
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from django.urls import reverse
from django.utils.dateparse import parse_date

from opencrane.console.pages import ConsoleAction
from opencrane.errors import InvalidError
from operations import job_files
from operations.exports import Export


class ExportAction(ConsoleAction):
    """Start the export of what the filters show.

    Attributes:
        export: of which listing.
        names: its filters, as the form sends them.
        list_page: name of the page with the list.
    """

    export: ClassVar[Export]
    names: ClassVar[Sequence[str]]
    list_page: ClassVar[str]

    @abstractmethod
    def wanted(self, values: dict[str, str]) -> Any:
        """What the filters ask for."""

    def act(self) -> str:
        values = {name: text for name in self.names if (text := self.request.POST.get(name, "").strip()[:500])}
        file_format = self.request.POST.get("format", "")
        if file_format not in job_files.FORMATS:
            raise InvalidError(fields={"format": ["Has to be jsonl or csv."]})
        job = self.export.start(wanted=self.wanted(values), file_format=file_format, actor=self.actor)
        return reverse("admin:job", args=[job.pk])

    def back(self) -> str:
        return reverse(self.list_page)


def midnight(text: str | None, *, days: int = 0) -> datetime.datetime | None:
    """The first moment of a day in UTC, or so many days later; None for what is no date."""
    try:
        day = parse_date(text or "")
        if day is None:
            return None
        return datetime.datetime.combine(day, datetime.time(), datetime.UTC) + datetime.timedelta(days=days)
    except (ValueError, OverflowError):
        return None
