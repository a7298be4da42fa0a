"""CellProfiler and JUMP: tables that name every image."""
