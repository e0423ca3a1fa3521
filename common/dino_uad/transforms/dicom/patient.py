"""Who a DICOM file is of, as a hash: the values themselves are never shown or kept."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence

from pydicom.dataset import Dataset

IDENTITY = (("PatientID", "IssuerOfPatientID"), ("PatientName", "PatientBirthDate"), ("StudyInstanceUID", ""))
"""What tells a patient, from the surest on: an attribute, and one that tells apart those who share it."""
TAGS = [name for names in IDENTITY for name in names if name]


def patient_of(header: Dataset) -> str:
    """A hash of PatientID with its issuer, else of PatientName and PatientBirthDate, else of the study; "" without.

    That of the issuer or date stands behind an @, so that :func:`with_issuers` knows where it is missing.
    """
    for name, issuer in IDENTITY:
        if told := _said(header, name):
            more = _said(header, issuer) if issuer else ""
            return f"patient-{_digest(name, told)}" + (f"@{_digest(issuer, more)}" if more else "")
    return ""


def with_issuers(patients: Sequence[str]) -> list[str]:
    """The patients of one data set, one without an issuer being the one with, if there is only one such.

    Some exports of a hospital state the issuer, and some do not.
    """
    issuers = defaultdict(set)
    for patient in patients:
        person, apart, issuer = patient.partition("@")
        issuers[person] |= {issuer} if apart else set()
    only = {person: f"{person}@{min(found)}" for person, found in issuers.items() if len(found) == 1}
    return [only.get(patient, patient) for patient in patients]


def _said(header: Dataset, name: str) -> str:
    return str(header.get(name) or "").strip()


def _digest(name: str, value: str) -> str:
    return hashlib.sha256(f"{name} {value}".encode("utf-8", "backslashreplace")).hexdigest()[:10]
