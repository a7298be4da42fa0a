"""OME-TIFF: planes as pages, described by OME-XML."""
