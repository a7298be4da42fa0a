"""Which settings of the model make better profiles? One factor at a time from the default; see `__main__`."""
