"""The core library: record grammar, schemas, envelope, streams, tables, settings and telemetry."""

from nomnom.errors import NomnomError

__all__ = ["NomnomError", "__version__"]
__version__ = "0.2.0"
