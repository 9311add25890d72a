"""Which scanners run, in which order. Inside the sandbox only."""

import time
from collections.abc import Callable

from skills.scanning.archives import SCANNER as ARCHIVE
from skills.scanning.archives import unpack
from skills.scanning.findings import Report, ScannerRun
from skills.scanning.material import Material, Scanner
from skills.scanning.scanners.python import PythonScanner
from skills.scanning.scanners.secrets import SecretsScanner
from skills.scanning.scanners.shell import ShellScanner
from skills.scanning.scanners.signatures import SignatureScanner
from skills.scanning.scanners.structure import StructureScanner

# Cheap ones first, so that what takes too long has said much already.
SCANNERS: tuple[Callable[[], Scanner], ...] = (
    StructureScanner,
    SignatureScanner,
    ShellScanner,
    SecretsScanner,
    PythonScanner,
)


def run(content: bytes, *, name: str, content_type: str, note: Callable[[str], None]) -> tuple[Report, Material]:
    """Unpack and have every scanner look.

    Args:
        note: told the name of each scanner before it begins, so that a crash can be laid at its door.
    """
    report = Report()
    note(ARCHIVE)
    began = time.monotonic()
    material = unpack(content, name=name, content_type=content_type)
    if material.findings:
        report.findings += material.findings
    report.scanners.append(ScannerRun(ARCHIVE, "1", time.monotonic() - began, len(material.findings)))
    for made in SCANNERS:
        note(made.__name__)
        began = time.monotonic()
        scanner = made()
        note(scanner.name)
        found = scanner.scan(material)
        report.findings += found
        report.scanners.append(ScannerRun(scanner.name, scanner.version, time.monotonic() - began, len(found)))
    return report, material
