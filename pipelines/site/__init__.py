"""What the documentation site is made with: generated pages, mathematics, pictures."""
