"""Published data sets as studies: what to fetch, and a step each that writes the study's tables. See README.md."""
