"""Opera Phenix and Operetta (Harmony): indexes of every version, and images without one."""
