"""Where a set comes from: embedded (E), a package (P), the data root (R), a download (D)."""
