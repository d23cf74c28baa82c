"""Where a set comes from: embedded (E), a published package (P), the data root (R), a download (D)."""
