"""Turn microscopy plates into well profiles, and measure how good the profiles are."""

__version__ = "0.1.0"
