"""Library of the cross-lingual transfer study; the notebooks in ``notebooks/`` are its users."""

__version__ = "0.1.0"
