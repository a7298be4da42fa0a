"""BBBC021: 113 compounds on MCF-7 cells, three stains, with mechanisms for 103 treatments. See README.md."""
