"""The OpenAPI document (to be completed below)."""
from __future__ import annotations
from typing import Any
from nomnom.schema import Schema
from nomnom_api.settings import ApiSettings
def document(settings: ApiSettings, schema: Schema) -> dict[str, Any]:
    """The document."""
    return {}
