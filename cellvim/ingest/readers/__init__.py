"""Readers: one per kind of source, each hands over which image holds which plane of which plate."""
