"""Plates and their sources, looked over after they were written."""
