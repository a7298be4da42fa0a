"""RxRx3-core: 735 genes knocked out and 1,674 compounds in 8 doses, on HUVEC. See README.md."""
