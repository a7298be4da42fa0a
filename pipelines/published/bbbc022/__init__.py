"""BBBC022: 1,600 bioactive compounds on U2OS cells, the first Cell Painting screen. See README.md."""
