"""CPJUMP1, the pilot of the JUMP consortium: compounds, CRISPR and ORF against the same genes. See README.md."""
