"""Whole studies on published data sets, each from the raw files to a table in `docs/`."""
