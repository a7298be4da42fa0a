"""OME-Zarr HCS plates of any program, versions 0.1 to 0.5."""
